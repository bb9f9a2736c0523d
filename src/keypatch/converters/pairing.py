"""Which volume a name in an annotation file means."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from keypatch.converters.notes import Notes, row_items, some
from keypatch.errors import UsageError
from keypatch.formats.volumes import VolumeInfo, volume_stem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pandas as pd

    from keypatch.converters.patterns import Match
    from keypatch.formats.annotations import AnnotationTable, VolumeHint

NOT_GIVEN: Final = "their volume was not given"


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


@dataclass(frozen=True)
class Source:
    """One annotation file as it was found and read.

    Attributes:
        match: Where it is.
        table: What is in it.
        relative_path: From the folder that all annotation files share, with slashes.
    """

    match: Match
    table: AnnotationTable
    relative_path: str

    @property
    def names(self) -> list[str]:
        """Volumes that its rows name, in order of appearance."""
        in_rows = self.table.points["volume"]
        return list(dict.fromkeys([*self.table.volumes, *map(str, in_rows[in_rows.notna()])]))


class Pairing:
    """Finds the volume that a name in an annotation file means.

    Args:
        headers: All volumes, by id.
        sources: All annotation files.
        mapped: Names in them to ids, as the person says.
        notes: Told what is assumed, and what finds no volume.
    """

    def __init__(
        self, headers: Mapping[str, Header], sources: Sequence[Source], mapped: Mapping[str, str], notes: Notes
    ) -> None:
        self._headers = headers
        self._mapped = mapped
        self._notes = notes
        self._formats = {header.info.format for header in headers.values()}
        stems = {volume_id: volume_stem(h.match.path, [h.info.format]) for volume_id, h in headers.items()}
        counts = Counter(stems.values())
        # Where several files have one stem (denoised.zarr in many folders), it names none of them.
        unique = {stem: volume_id for volume_id, stem in stems.items() if counts[stem] == 1}
        self._stems = unique | {volume_id: volume_id for volume_id in headers}
        stated = {name for source in sources if "volume" not in source.match.fields for name in source.names}
        by_pattern = any("volume" in source.match.fields for source in sources)
        self._sole_name = next(iter(stated)) if len(stated) == len(headers) == 1 and not by_pattern else None
        self._check_map({*stated, *(source.match.fields.get("volume", "") for source in sources)})

    def rows(self, source: Source) -> Iterable[tuple[str, VolumeHint | None, pd.DataFrame]]:
        """Share a file's rows out: volume id, what the file says of it, rows. A volume stated empty has no rows."""
        named, hints = self._named(source)
        yield from self._found(source, hints, named)
        nameless = source.table.points["volume"].isna()
        if "volume" not in source.match.fields and (not named or nameless.any()):
            yield self._only_volume(source), None, source.table.points[nameless]

    def _named(self, source: Source) -> tuple[dict[str, pd.DataFrame], Mapping[str, VolumeHint]]:
        """Rows by the name of their volume; ``{volume}`` in the path counts before names inside."""
        points, hints, names = source.table.points, source.table.volumes, source.names
        owner = source.match.fields.get("volume")
        if owner is None:
            groups = {str(name): rows for name, rows in points.groupby("volume", sort=False)}
            return {name: groups.get(name, points.iloc[:0]) for name in names}, hints
        if owner in names:
            of_others = points["volume"].notna() & (points["volume"] != owner)
            items = row_items(source.relative_path, points["source_row"][of_others])
            self._notes.omit("annotations", "their row names another volume than their path", items)
            return {owner: points[~of_others]}, hints
        if names:
            self._notes.warn(source.relative_path, f"names {some(names)} inside; its path says {owner}, which counts")
        return {owner: points}, {owner: hints[names[0]]} if len(names) == 1 and names[0] in hints else {}

    def _found(
        self, source: Source, hints: Mapping[str, VolumeHint], named: Mapping[str, pd.DataFrame]
    ) -> Iterable[tuple[str, VolumeHint | None, pd.DataFrame]]:
        missing: dict[str, int] = {}
        for name, rows in named.items():
            volume_id = self._volume_id(source, name, hints.get(name))
            if volume_id is None:
                missing[name] = len(rows)
            else:
                yield volume_id, hints.get(name), rows
        items = [f"{source.relative_path}: {name} ({n} rows)" for name, n in missing.items()]
        self._notes.omit("annotations", NOT_GIVEN, items, sum(missing.values()))

    def _volume_id(self, source: Source, name: str, hint: VolumeHint | None) -> str | None:
        if name in self._mapped:
            return self._mapped[name]
        if name in self._headers:
            return name
        stems = [volume_stem(Path(name), self._formats)]
        if hint is not None and hint.file_stem is not None:
            stems.insert(0, hint.file_stem)
        for stem in stems:
            if stem in self._stems:
                return self._stems[stem]
        assumed = self._stems.get(Path(name).stem)
        if assumed is None and name == self._sole_name:
            (assumed,) = self._headers
        if assumed is not None:
            self._notes.warn(source.relative_path, f"{name!r} is taken to mean the volume {assumed!r}")
        return assumed

    def _only_volume(self, source: Source) -> str:
        if len(self._headers) != 1:
            raise UsageError.at(
                source.match.path,
                expected="the name of a volume for every point",
                found=f"none, and {len(self._headers)} volumes were given",
                hint="give patterns with {volume} for volumes and annotations, or a column with --columns volume=NAME",
            )
        (volume_id,) = self._headers
        return volume_id

    def _check_map(self, names: set[str]) -> None:
        for name, volume_id in sorted(self._mapped.items()):
            if volume_id not in self._headers:
                raise UsageError.at(
                    f"--map {name}={volume_id}", expected=f"a volume of {some(self._headers)}", found=repr(volume_id)
                )
            if name not in names:
                self._notes.warn("--map", f"no annotation file names {name!r}")
