"""The registered devices, by the scheme of a profile's connection."""

from __future__ import annotations

from autocompress.core.device import Device
from autocompress.core.profile import Profile
from autocompress.core.runtime import Runtime
from autocompress.devices.local import LocalDevice
from autocompress.errors import ProfileError, nearest

DEVICES: tuple[type[Device], ...] = (LocalDevice,)


def device_of(profile: Profile, runtime: Runtime) -> Device:
    """The device that the profile's connection names; it runs artifacts in `runtime`.

    Raises:
        ProfileError: when no device is reached in that way.
        DeviceError: when the connection names none.
    """
    connection = profile.device.connection
    scheme = connection.partition("://")[0]
    known = {device.scheme: device for device in DEVICES}
    if scheme not in known:
        where = f"profile {profile.name}: device.connection"
        raise ProfileError(f"no device is reached by {connection!r}.", where=where, hint=nearest(scheme, known))
    return known[scheme].connect(connection, runtime)


__all__ = ["DEVICES", "LocalDevice", "device_of"]
