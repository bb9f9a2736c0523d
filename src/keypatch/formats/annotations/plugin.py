"""Annotation formats of other packages: a fence around each, so that what it does wrong is told in one line."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from keypatch.errors import KeypatchError
from keypatch.formats import plugins
from keypatch.formats.annotations.base import POINT_COLUMNS, AnnotationTable, Convention, point_frame
from keypatch.formats.plugins import Plugin, PluginGroup
from keypatch.geometry import UNITS, ZEROS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from keypatch.formats.annotations.base import AnnotationOptions

OPTIONS = frozenset({"columns", "delimiter", "header", "tomograms"})
"""What ``USES`` may name."""

DEMANDED = {
    **plugins.COMMON,
    "USES": (lambda value: isinstance(value, frozenset) and value <= OPTIONS, f"a frozenset of {sorted(OPTIONS)}"),
    "read": (callable, "a function that reads a file"),
}


class PluginFormat:
    """An annotation format of another package; see `keypatch.formats.annotations.registry.AnnotationFormat`.

    Args:
        plugin: Its module, with all that `DEMANDED` names.
        report: Told when ``matches`` fails, which counts as no match.
    """

    def __init__(self, plugin: Plugin, report: Callable[[Plugin, str], None]) -> None:
        self.NAME: str = plugin.name
        self.SUFFIXES: tuple[str, ...] = plugin.module.SUFFIXES
        self.DESCRIPTION: str = plugin.module.DESCRIPTION
        self.USES: frozenset[str] = plugin.module.USES
        self._plugin = plugin
        self._report = report

    def matches(self, path: Path, head: bytes, /) -> bool:
        """Whether the plugin says that the content is of its format."""
        try:
            with self._plugin.at_work(path, "a look at the content"):
                return bool(self._plugin.module.matches(path, head))
        except KeypatchError as error:
            self._report(self._plugin, f"its matches() failed on a file: {error.__cause__ or type(error).__name__}")
            return False

    def read(self, path: Path, options: AnnotationOptions, /) -> AnnotationTable:
        """Read the whole file.

        Raises:
            ReadError: If the plugin cannot read it.
            FormatError: If the content is not what the plugin's format demands, or the plugin breaks its contract.
        """
        with self._plugin.at_work(path, "annotations that can be read"):
            table = self._plugin.module.read(path, options)
        problem = _broken(table)
        if problem:
            raise self._plugin.broken(path, expected="an AnnotationTable as its class describes it", found=problem)
        with self._plugin.at_work(path, "points"):
            result: AnnotationTable = replace(table, path=path, format=self.NAME, points=_points(table.points))
        return result


def _broken(table: Any) -> str:  # noqa: ANN401 - whatever a plugin gives
    """What an annotation table lacks; "" where it is one."""
    if not isinstance(table, AnnotationTable):
        return f"{type(table).__name__}"
    convention, points = table.convention, table.points
    if not isinstance(convention, Convention) or convention.unit not in UNITS or convention.zero not in ZEROS:
        return f"{convention!r:.120}"
    if not isinstance(points, pd.DataFrame) or list(points.columns) != list(POINT_COLUMNS):
        return f"points with the columns {list(getattr(points, 'columns', ()))}, not {list(POINT_COLUMNS)}"
    numbers = points[["z", "y", "x"]].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    if not np.isfinite(numbers).all():
        return f"coordinates that are no finite numbers in row {int(np.argmin(np.isfinite(numbers).all(axis=1)))}"
    texts = [*points["volume"].dropna(), *points["class_name"].dropna(), *table.volumes]
    odd = next((text for text in texts if not isinstance(text, str)), None)
    return "" if odd is None else f"{odd!r:.60} as the name of a volume or a class"


def _points(points: pd.DataFrame) -> pd.DataFrame:
    """The same with the dtypes that the contract promises."""
    return point_frame(
        points[["z", "y", "x"]].to_numpy(np.float64),
        volume=[None if pd.isna(name) else name for name in points["volume"]],
        class_name=[None if pd.isna(name) else name for name in points["class_name"]],
        score=points["score"].to_numpy(np.float64),
        source_row=points["source_row"].to_numpy(np.int64),
    )


def plugin_group(taken: frozenset[str]) -> PluginGroup[PluginFormat]:
    """The annotation formats of other packages; ``taken`` are the names of our own."""
    group: PluginGroup[PluginFormat] = PluginGroup(
        plugins.ANNOTATIONS, DEMANDED, lambda plugin: PluginFormat(plugin, group.report), taken
    )
    return group
