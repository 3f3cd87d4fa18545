"""The devices that can be measured on."""

from __future__ import annotations

from autocompress.core.device import Device
from autocompress.devices.local import LocalDevice

DEVICES: tuple[type[Device], ...] = (LocalDevice,)

__all__ = ["DEVICES", "LocalDevice"]
