"""Which volume a name in an annotation file means."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from keypatch.converters.notes import Notes, some
from keypatch.errors import UsageError
from keypatch.formats.volumes import VolumeInfo, volume_stem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd

    from keypatch.converters.patterns import Match
    from keypatch.formats.annotations import AnnotationTable, VolumeHint


@dataclass(frozen=True)
class Header:
    """One volume as it was found.

    Attributes:
        id: Unique name.
        match: Where it is.
        info: Its header.
        relative_path: From the folder that all volumes share, with slashes.
    """

    id: str
    match: Match
    info: VolumeInfo
    relative_path: str


class Pairing:
    """Finds the volume that a name in an annotation file means."""

    def __init__(self, headers: Mapping[str, Header], mapped: Mapping[str, str], notes: Notes) -> None:
        self._headers = headers
        self._mapped = mapped
        self._notes = notes
        self._stems = {volume_stem(header.match.path): header.id for header in headers.values()}
        for name, volume_id in mapped.items():
            if volume_id not in headers:
                raise UsageError.at(
                    f"--map {name}={volume_id}", expected=f"a volume of {some(headers)}", found=repr(volume_id)
                )

    def rows(self, match: Match, table: AnnotationTable) -> Iterable[tuple[str, str | None, pd.DataFrame]]:
        """Share a table's rows out: volume id, name in the table, rows. A volume stated empty has no rows."""
        pattern_volume = match.fields.get("volume")
        if pattern_volume is not None:
            names = [name for name in table.volumes if name != pattern_volume]
            if names:
                self._notes.warn(
                    match.path, f"names {some(names)} inside; its path says {pattern_volume}, which counts"
                )
            yield from self._found(match, {pattern_volume: None}, {pattern_volume: table.points})
            return
        has_name = table.points["volume"].notna()
        groups = {str(name): rows for name, rows in table.points[has_name].groupby("volume", sort=False)}
        named = {name: groups.get(name, table.points.iloc[:0]) for name in [*table.volumes, *groups]}
        yield from self._found(match, table.volumes, named)
        if not named or not has_name.all():
            yield self._only_volume(match), None, table.points[~has_name]

    def _found(
        self, match: Match, hints: Mapping[str, VolumeHint | None], named: Mapping[str, pd.DataFrame]
    ) -> Iterable[tuple[str, str, pd.DataFrame]]:
        missing: dict[str, int] = {}
        for name, rows in named.items():
            volume_id = self._volume_id(name, hints.get(name))
            if volume_id is None and len(named) == len(self._headers) == 1:
                (volume_id,) = self._headers
                self._notes.warn(match.path, f"{name!r} is taken to mean {volume_id!r}, the only volume given")
            if volume_id is None:
                missing[name] = len(rows)
            else:
                yield volume_id, name, rows
        if missing:
            items = [f"{match.path.name}: {name} ({n} rows)" for name, n in missing.items()]
            self._notes.omit("annotations", "their volume was not given", items, sum(missing.values()))

    def _volume_id(self, name: str, hint: VolumeHint | None) -> str | None:
        if name in self._mapped:
            return self._mapped[name]
        if name in self._headers:
            return name
        stems = [volume_stem(Path(name)), Path(name).stem]
        if hint is not None and hint.file_stem is not None:
            stems.insert(0, hint.file_stem)
        return next((self._stems[stem] for stem in stems if stem in self._stems), None)

    def _only_volume(self, match: Match) -> str:
        if len(self._headers) != 1:
            raise UsageError.at(
                match.path,
                expected="the name of a volume for every point",
                found=f"none, and {len(self._headers)} volumes were given",
                hint="give patterns with {volume} for volumes and annotations, or a column with --column volume=NAME",
            )
        (volume_id,) = self._headers
        return volume_id
