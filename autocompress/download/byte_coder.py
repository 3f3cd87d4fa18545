"""Bytes coded by the adaptive model of the decoder: a binary arithmetic code of 32 bits."""

from __future__ import annotations

from autocompress.download.acz_decoder import MASK, ByteModel


def coded_bytes(content: bytes) -> bytes:
    """The code from which `acz_decoder.modelled_bytes` makes these bytes again."""
    model = ByteModel()
    low, high = 0, MASK
    code = bytearray()
    for byte in content:
        for place in range(7, -1, -1):
            middle = low + ((high - low) >> 12) * model.probability()
            bit = byte >> place & 1
            if bit:
                high = middle
            else:
                low = middle + 1
            model.update(bit)
            while not (low ^ high) >> 24:
                code.append(high >> 24)
                low, high = low << 8 & MASK, high << 8 & MASK | 255
    # any number from low to high ends the code: the shortest is followed by zeros, which the decoder adds
    code.append((low >> 24) + 1 if low & 0xFFFFFF else low >> 24)
    return bytes(code)
