"""The registered runtimes, by the name that profiles give them."""

from __future__ import annotations

from autocompress.core.profile import Profile
from autocompress.core.runtime import Runtime
from autocompress.errors import ProfileError, nearest
from autocompress.runtimes.onnxruntime import OnnxRuntime

RUNTIMES: tuple[type[Runtime], ...] = (OnnxRuntime,)


def runtime_of(profile: Profile) -> Runtime:
    """The runtime that the profile names.

    Raises:
        ProfileError: when there is none of that name.
    """
    name = profile.runtime.name
    known = {runtime.name: runtime for runtime in RUNTIMES}
    if name not in known:
        where = f"profile {profile.name}: runtime.name"
        raise ProfileError(f"there is no runtime named {name!r}.", where=where, hint=nearest(name, known))
    return known[name]()


__all__ = ["RUNTIMES", "OnnxRuntime", "runtime_of"]
