"""torch's own encoders and decoders: what they decide at call time, which no exported graph does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from autocompress.core.runtime import Example
from autocompress.data.module import inference_mode_of, place_of, returned

# the arguments by which encoders and decoders are told that their mask is the causal one, with their places
HINTS: dict[type[nn.Module], tuple[str, int]] = {
    nn.TransformerEncoder: ("is_causal", 3),
    nn.TransformerDecoder: ("tgt_is_causal", 6),
}


def dropping_padding(module: nn.Module, example: Example) -> list[str]:
    """Names of the encoders that drop padded places on the example, and give 0 there.

    `nn.TransformerEncoder(enable_nested_tensor=True)`, the default, does so in evaluation mode where it is given a
    `src_key_padding_mask`. A module that fails on the example drops none.
    """
    able = {
        name: part
        for name, part in module.named_modules()
        if isinstance(part, nn.TransformerEncoder) and getattr(part, "use_nested_tensor", False)
    }
    if not able:
        return []
    given: list[str] = []
    place = place_of(module)
    tensors = {name: tensor.to(place) for name, tensor in example.tensors().items()}
    with ExitStack() as hooks:
        for name, part in able.items():

            def note(_part: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], name: str = name) -> None:
                mask = args[2] if len(args) > 2 else kwargs.get("src_key_padding_mask")
                if mask is not None and name not in given:
                    given.append(name)

            hooks.callback(part.register_forward_pre_hook(note, with_kwargs=True).remove)
        try:
            with inference_mode_of(module):
                returned(module, tensors, example)
        except Exception:  # noqa: BLE001 - the call that is checked says what is wrong
            return []
    return given


def keep_padding(module: nn.Module, names: list[str]) -> None:
    """Make these encoders compute padded places like all others."""
    for name in names:
        encoder = module.get_submodule(name)
        assert isinstance(encoder, nn.TransformerEncoder)
        encoder.use_nested_tensor = encoder.enable_nested_tensor = False


@contextmanager
def masks_as_given(module: nn.Module) -> Iterator[None]:
    """Let torch's encoders and decoders apply masks as they are in the block.

    Where nobody says whether a mask is the causal one, they compare its values, which no graph can. Which of the two
    ways they go is a matter of speed alone.
    """
    with ExitStack() as hooks:
        for part in module.modules():
            if type(part) in HINTS:
                name, place = HINTS[type(part)]

                def undecided(
                    _part: nn.Module,
                    args: tuple[Any, ...],
                    kwargs: dict[str, Any],
                    name: str = name,
                    place: int = place,
                ) -> tuple[tuple[Any, ...], dict[str, Any]]:
                    if len(args) > place:
                        return (*args[:place], bool(args[place]), *args[place + 1 :]), kwargs
                    return args, {**kwargs, name: bool(kwargs.get(name))}

                hooks.callback(part.register_forward_pre_hook(undecided, with_kwargs=True).remove)
        yield
