"""What an audit finds: stable codes with their meaning and cure, and a collector that keeps a long list readable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from keypatch.findings import Code, Finding, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

CAP: Final = 10
"""Findings of one code within one array that are listed one by one unless asked otherwise; the rest is counted."""

_RESTORE: Final = "restore the file from a copy, or build the store again"
_REPAIR: Final = "run keypatch repair, restore the file from a copy, or build the store again"
_REBUILD: Final = "build the store again; if it was edited, edit the sources and not the store"
_REPORT: Final = "build the store again; if a fresh build shows it too, report it"


CODES: Final[Mapping[str, Code]] = {
    # KP1xx: layout and metadata
    "KP101": Code("error", "An array or group that the schema demands is not there.", _RESTORE),
    "KP102": Code("error", "A zarr.json holds no valid metadata.", _RESTORE),
    "KP103": Code("error", "An array has another dtype than the schema demands.", _REBUILD),
    "KP104": Code("error", "An array has another shape than the rest of the store demands.", _REBUILD),
    "KP105": Code("error", "An array is chunked, sharded or encoded in another way than the schema demands.", _REBUILD),
    "KP106": Code("error", "An attribute is missing, malformed, or contradicts another.", _REBUILD),
    "KP107": Code("error", "The attribute counts contradicts the arrays.", _REBUILD),
    "KP108": Code("error", "The names of classes or kinds are not usable.", _REBUILD),
    "KP109": Code("error", "The record of a volume is incomplete or contradicts itself.", _REBUILD),
    "KP110": Code("error", "The record of an annotation source is incomplete.", _REBUILD),
    "KP111": Code(
        "error",
        "A file or folder lies in the store that is no part of it.",
        "move it out of the store, or let keypatch repair --remove-stray take it away",
    ),
    "KP112": Code("error", "A link leads out of the store; it was not followed.", "put the file itself there"),
    "KP113": Code("error", "A shard file is missing; Zarr readers show its patches as zeros.", _REPAIR),
    "KP114": Code("error", "A shard file has not the size that was recorded.", _REPAIR),
    "KP115": Code("error", "A metadata file, or a chunk of a table, is not the one that was written.", _RESTORE),
    "KP116": Code("error", "The root's attributes are not those that were written.", _RESTORE),
    "KP117": Code("error", "A file cannot be read.", "check the permissions and the disk"),
    "KP118": Code("warning", "The store has a newer minor version; its additions were not checked.", "update keypatch"),
    "KP119": Code("error", "The store is not the one that was asked for.", "get the store of that digest"),
    "KP120": Code("error", "The root's zarr.json is not the text that was written.", _RESTORE),
    # KP2xx: bytes
    "KP201": Code("error", "A shard file is not the one that was written.", _REPAIR),
    "KP202": Code("error", "The index of a shard is damaged.", _REPAIR),
    "KP203": Code("error", "A patch has no chunk in its shard; Zarr readers show zeros.", _REPAIR),
    "KP204": Code("error", "A chunk of a patch fails its checksum or does not decode.", _REPAIR),
    "KP205": Code("error", "An image holds NaN or infinity.", "clean the volume and build the store again"),
    "KP206": Code("error", "A stored Gaussian holds a value outside 0 … 1.", _REBUILD),
    "KP207": Code("error", "A shard holds a chunk for a patch that does not exist.", _REBUILD),
    "KP208": Code("error", "A chunk of a table is missing; Zarr readers show zeros.", _RESTORE),
    "KP209": Code("error", "A chunk of a table fails its checksum or does not decode.", _RESTORE),
    "KP210": Code("error", "Voxels outside the volume are not what the recipe's padding puts there.", _REBUILD),
    # KP3xx: tables and geometry
    "KP301": Code("error", "keypoint_offsets do not run from 0 to the number of keypoints.", _REBUILD),
    "KP302": Code("error", "An index points to nothing.", _REBUILD),
    "KP303": Code("error", "local_rs_coords is not global_coords - origin.", _REBUILD),
    "KP304": Code("error", "local_ds_coords is not (local_rs_coords + 0.5) / ds_factor - 0.5.", _REBUILD),
    "KP305": Code("error", "global_coords are not those of the keypoint's annotation.", _REBUILD),
    "KP306": Code("error", "A keypoint's annotation lies in another volume than its patch.", _REBUILD),
    "KP307": Code("error", "A keypoint has another class than its annotation.", _REBUILD),
    "KP308": Code("error", "angstrom_sigma is not ds_sigma * ds_factor * voxel_spacing.", _REBUILD),
    "KP309": Code("error", "A patch has another voxel spacing than its volume.", _REBUILD),
    "KP310": Code("error", "valid_start and valid_stop are not the part that lies in the volume.", _REBUILD),
    "KP311": Code("error", "An annotation within reach of a patch is not among its keypoints.", _REPORT),
    "KP312": Code("error", "A keypoint is not within reach of its patch.", _REPORT),
    "KP313": Code("error", "The keypoints of a patch are not in the order of their annotations, each once.", _REBUILD),
    "KP314": Code("error", "A patch has another fold than its volume.", _REBUILD),
    "KP315": Code("error", "One volume lies in two folds, so that a test would see training data.", _REPORT),
    "KP316": Code("warning", "Two patches are the same box of the same volume.", "lower the number of random patches"),
    "KP317": Code("warning", "An annotation lies outside its volume.", "check unit, axis order and zero of the source"),
    "KP318": Code("error", "A number that must be finite, or above 0, is not.", _REBUILD),
    "KP319": Code("error", "A patch lies wholly outside its volume.", _REPORT),
    "KP320": Code("error", "The annotations are not in the order of volumes and sources.", _REBUILD),
    # KP4xx: Gaussians
    "KP401": Code("error", "A stored Gaussian is not what its formula gives.", _REBUILD),
    "KP402": Code("error", "The peak of a stored Gaussian does not sit on its keypoint.", _REBUILD),
    # KP5xx: sources
    "KP501": Code("error", "The file of a volume is not in the source folder.", "give the folder all volumes share"),
    "KP502": Code("error", "The file of a volume cannot be read.", "restore the source"),
    "KP503": Code("error", "The source of a volume has another shape than recorded.", "find the file that was used"),
    "KP504": Code("error", "The source of a volume has another dtype than recorded.", "find the file that was used"),
    "KP505": Code("error", "The header of a volume gives another voxel spacing than recorded.", _REBUILD),
    "KP506": Code("error", "A patch is not what its source holds there.", "build again from the present source"),
    "KP507": Code("error", "A patch cannot be cut from its source again.", "find the file that was used"),
}
"""Every code: severity, meaning, cure. A code keeps its meaning for ever; new ones are added behind."""


class Findings:
    """Collects every violation, lists the first ones of a code within an array, and counts the rest.

    Args:
        cap: Findings listed one by one of each code within each array.
    """

    def __init__(self, cap: int = CAP) -> None:
        self.cap = cap
        self._listed: dict[tuple[str, str], dict[Finding, None]] = {}
        self._more: dict[tuple[str, str], int] = {}

    def add(self, code: str, where: str, *, expected: object, found: object, within: str = "") -> None:
        """Add one violation; the very same one is kept once.

        Args:
            code: Key of `CODES`.
            where: See `Finding`.
            expected: See `Finding`.
            found: See `Finding`.
            within: The array or file under which findings of the code are counted together; ``where`` unless given.
        """
        key = (code, within or where)
        finding = Finding(code, CODES[code].severity, one_line(where), one_line(expected), one_line(found))
        listed = self._listed.setdefault(key, {})
        if finding in listed:
            return
        if len(listed) < self.cap:
            listed[finding] = None
        else:
            self._more[key] = self._more.get(key, 0) + 1

    def add_rows(
        self,
        code: str,
        table: str,
        rows: NDArray[Any],
        expected: Callable[[int], object],
        found: Callable[[int], object],
        place: Callable[[int], str] | None = None,
    ) -> None:
        """Add one violation a row of a table; texts are made only for those that are listed.

        Args:
            code: Key of `CODES`.
            table: Path of the array.
            rows: (R,) integers, the rows that violate.
            expected: Gives the text for a row.
            found: The same.
            place: What to say of a row beside its number, such as its patch.
        """
        listed = [int(row) for row in rows[: self.cap]]
        for row in listed:
            where = f"{table}[{row}]{f', {place(row)}' if place else ''}"
            self.add(code, where, expected=expected(row), found=found(row), within=table)
        self.add_uncounted(code, table, len(rows) - len(listed))

    def add_uncounted(self, code: str, within: str, count: int) -> None:
        """Count violations beyond those that were added one by one."""
        if count > 0:
            self._listed.setdefault((code, within), {})
            self._more[code, within] = self._more.get((code, within), 0) + count

    def merge(self, other: Findings) -> None:
        """Take over what another collector (of another unit, or another process) has found."""
        for (code, within), listed in other._listed.items():
            for finding in listed:
                self.add(code, finding.where, expected=finding.expected, found=finding.found, within=within)
        for (code, within), count in other._more.items():
            self.add_uncounted(code, within, count)

    def name(self, where: str) -> bool:
        """Whether one of the listed ones is about this very place."""
        return any(finding.where == where for listed in self._listed.values() for finding in listed)

    def listed(self) -> tuple[Finding, ...]:
        """Those that are listed, in the order in which their codes and arrays came up."""
        return tuple(finding for listed in self._listed.values() for finding in listed)

    def counts(self) -> dict[str, int]:
        """How many there are of each code, listed or not, in the order in which the codes came up."""
        total: dict[str, int] = {}
        for key, listed in self._listed.items():
            code, _ = key
            total[code] = total.get(code, 0) + len(listed) + self._more.get(key, 0)
        return total
