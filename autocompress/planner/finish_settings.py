"""Spaces of settings narrowed to one combination, for recipes that vary something else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from autocompress.core.plan import Setting
from autocompress.core.search_space import SettingSpace


def first_only(space: SettingSpace) -> SettingSpace:
    """The space of the most promising settings alone."""
    return only(space, next(space.grid()))


def only(space: SettingSpace, settings: Mapping[str, Setting]) -> SettingSpace:
    """The space of these settings alone."""
    chosen = (replace(c, options=(settings[c.name],), optional=False) for c in space.choices if c.name in settings)
    return SettingSpace(tuple(chosen))
