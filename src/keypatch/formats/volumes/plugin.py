"""Volume formats of other packages: a fence around each, so that what it does wrong is told in one line."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from keypatch.errors import KeypatchError
from keypatch.formats import plugins
from keypatch.formats.plugins import Plugin, PluginGroup
from keypatch.formats.volumes.base import Access, VolumeInfo
from keypatch.formats.volumes.reader import VolumeReader, volume_dtype, volume_shape

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from keypatch.formats.volumes.base import Peek, Volume, VolumeOptions

DEMANDED = {**plugins.COMMON, "open_volume": (callable, "a function that opens a volume")}


class PluginFormat:
    """A volume format of another package; see `keypatch.formats.volumes.registry.VolumeFormat` for its members.

    Args:
        plugin: Its module, with all that `DEMANDED` names.
        report: Told when ``matches`` fails, which counts as no match.
    """

    def __init__(self, plugin: Plugin, report: Callable[[Plugin, str], None]) -> None:
        self.NAME: str = plugin.name
        self.SUFFIXES: tuple[str, ...] = plugin.module.SUFFIXES
        self.DESCRIPTION: str = plugin.module.DESCRIPTION
        self._plugin = plugin
        self._report = report

    def matches(self, peek: Peek) -> bool:
        """Whether the plugin says that the content is of its format."""
        try:
            with self._plugin.at_work(peek.path, "a look at the content"):
                return bool(self._plugin.module.matches(peek))
        except KeypatchError as error:
            self._report(self._plugin, f"its matches() failed on a file: {error.__cause__ or type(error).__name__}")
            return False

    def open_volume(self, path: Path, options: VolumeOptions) -> Volume:
        """Open the volume.

        Raises:
            ReadError: If the plugin cannot read it.
            FormatError: If the content is not what the plugin's format demands, or the plugin breaks its contract.
        """
        with self._plugin.at_work(path, "a volume that can be opened"):
            volume = self._plugin.module.open_volume(path, options)
            info = volume.info
        try:
            return _FencedVolume(self._plugin, volume, _checked(self._plugin, path, info))
        except BaseException:
            volume.close()
            raise


class _FencedVolume(VolumeReader):
    """A plugin's volume whose boxes are what its header promises."""

    def __init__(self, plugin: Plugin, volume: Volume, info: VolumeInfo) -> None:
        super().__init__(info)
        self._plugin = plugin
        self._volume = volume

    def _read_box(self, z: slice, y: slice, x: slice) -> NDArray[Any]:
        start, stop = (z.start, y.start, x.start), (z.stop, y.stop, x.stop)
        with self._plugin.at_work(self.info.path, "voxels that can be read"):
            box = np.asarray(self._volume.read(start, stop))
        shape = tuple(b - a for a, b in zip(start, stop, strict=True))
        if box.shape != shape or box.dtype.newbyteorder("=") != self.info.dtype:
            expected, found = f"a box of {shape} {self.info.dtype}", f"{box.shape} {box.dtype}"
            raise self._plugin.broken(self.info.path, expected=expected, found=found)
        return box

    def close(self) -> None:
        with self._plugin.at_work(self.info.path, "a volume that can be closed"):
            self._volume.close()


def _checked(plugin: Plugin, path: Path, info: object) -> VolumeInfo:
    if not isinstance(info, VolumeInfo):
        raise plugin.broken(path, expected="a VolumeInfo", found=repr(info)[:60])
    checks = {
        "voxel_spacing": (
            info.voxel_spacing is None or _are_positive(info.voxel_spacing),
            "None or three lengths in Å",
        ),
        "access": (info.access in get_args(Access), f"one of {', '.join(get_args(Access))}"),
        "conventions": (_is_json(info.conventions), "values that JSON can hold"),
        "warnings": (all(isinstance(line, str) for line in info.warnings), "lines of text"),
        "world": (info.world is None or _is_affine(info.world), "None or a (4, 4) map"),
    }
    for name, (met, expected) in checks.items():
        if not met:
            found = f"{getattr(info, name)!r:.60}"
            raise plugin.broken(path, expected=f"{name} to be {expected}", found=found)
    with plugin.at_work(path, "a shape and a dtype that can be read"):
        return replace(
            info,
            path=path,
            format=plugin.name,
            shape=volume_shape(path, info.shape),
            dtype=volume_dtype(path, np.dtype(info.dtype)),
        )


def _are_positive(spacing: object) -> bool:
    return (
        isinstance(spacing, tuple)
        and len(spacing) == 3
        and all(isinstance(n, int | float) and math.isfinite(n) and n > 0 for n in spacing)
    )


def _is_json(value: object) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return isinstance(value, dict)


def _is_affine(world: object) -> bool:
    try:
        affine = np.asarray(world, np.float64)
    except (TypeError, ValueError):
        return False
    return affine.shape == (4, 4) and bool(np.isfinite(affine).all())


def plugin_group(taken: frozenset[str]) -> PluginGroup[PluginFormat]:
    """The volume formats of other packages; ``taken`` are the names of our own."""
    group: PluginGroup[PluginFormat] = PluginGroup(
        plugins.VOLUMES, DEMANDED, lambda plugin: PluginFormat(plugin, group.report), taken
    )
    return group
