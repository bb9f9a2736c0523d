"""Random damage to stores: what is done, and what an audit must then say of which file.

A mutation is settled by its seed and number alone, so that one that goes unnoticed can be tried again.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import zarr

from keypatch.audit.validate import validate
from keypatch.errors import StoreError
from keypatch.findings import Finding
from keypatch.formats.store import write_unit
from keypatch.formats.store.layout import shard_key

from .stores import Design, Made, make_store

SMALL: Final = {"volume_shapes": ((36, 70, 50), (34, 64, 60)), "n_annotations": (4, 4)}

DESIGNS: Final = {
    "uint8, zero, two chunks a patch": Design(**SMALL, chunk_shape=(8, 32, 24)),
    "float32, mean, float16 Gaussians": Design(
        **SMALL, seed=1, padding="mean", source_dtype="float32", dtype="float32", gaussian_dtype="float16"
    ),
    "int16, edge, no codec, no folds": Design(**SMALL, seed=2, padding="edge", codec="none", dtype="int16", folds=0),
    "uint8, reflect, no Gaussians": Design(**SMALL, seed=3, padding="reflect", gaussian_dtype=None),
    "float16, inside, one unit": Design(
        **SMALL, seed=4, padding="inside", source_dtype="float32", dtype="float16", patches_per_shard=100
    ),
}
"""Small but complete stores."""

ROOT: Final = "zarr.json"

OF_METADATA: Final = frozenset({"KP101", "KP102", "KP103", "KP104", "KP105", "KP109", "KP115"})
OF_ROOT: Final = frozenset({"KP101", "KP102", "KP106", "KP107", "KP108", "KP110", "KP115", "KP116", "KP120"})
OF_CHUNKS: Final = frozenset({"KP115", "KP208", "KP209"})
OF_SHARDS: Final = frozenset({"KP113", "KP114", "KP201", "KP202", "KP203", "KP204"})
OF_STRAYS: Final = frozenset({"KP111"})
OF_LINKS: Final = frozenset({"KP112"})

BLAMING: Final = frozenset({"KP101", "KP102", "KP111", "KP112", "KP115"}) | OF_CHUNKS | OF_SHARDS
"""Codes that say of one file that it is not right; no file that is right may be named by one."""


@dataclass(frozen=True)
class Mutation:
    """What was done to a store.

    Attributes:
        what: For a person.
        expected: Of each place that must be named, the codes of which one must name it.
        may_blame: Beginnings of the names of files that may be said to be wrong; () stands for any.
        may_refuse: Whether it may be no store any more.
    """

    what: str
    expected: dict[str, frozenset[str]]
    may_blame: tuple[str, ...]
    may_refuse: bool = False


class Subject:
    """A copy of a store to be damaged and healed, again and again; to make and remove a copy each time takes longer."""

    def __init__(self, made: Made, path: Path) -> None:
        self.made, self.path = made, path
        shutil.copytree(made.path, path)
        self._whole = {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}
        self._folders = {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_dir()}
        self.files = sorted(self._whole)
        self._seen = {name: self._status(name) for name in self.files}
        self.rng = random.Random()

    def choose(self, keep: Callable[[str], bool] = lambda _: True) -> str:
        return self.rng.choice([name for name in self.files if keep(name)])

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        (self.path / name).write_bytes(data)

    def folders(self) -> list[str]:
        return ["", *sorted(self._folders)]

    def heal(self, touched: Iterable[str]) -> None:
        """Make it the store that it was. What was touched is written in any case: times of files are coarse."""
        for found in sorted(self.path.rglob("*"), reverse=True):
            name = found.relative_to(self.path).as_posix()
            if found.is_symlink() or (name not in self._whole and not found.is_dir()):
                found.unlink()
            elif name not in self._whole and name not in self._folders:
                found.rmdir()
        for name, data in self._whole.items():
            if name in touched or self._status(name) != self._seen[name]:
                self.write(name, data)
                self._seen[name] = self._status(name)

    def _status(self, name: str) -> tuple[int, ...] | None:
        try:
            status = (self.path / name).lstat()
        except FileNotFoundError:
            return None
        return status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns


def is_shard(name: str) -> bool:
    return name.startswith(("image/c/", "gaussian/c/"))


def is_metadata(name: str) -> bool:
    return name.endswith(ROOT)


def codes_of(name: str) -> frozenset[str]:
    """What may be said of a file that is not the one that was written."""
    if name == ROOT:
        return OF_ROOT
    if is_metadata(name):
        return OF_METADATA
    return OF_SHARDS if is_shard(name) else OF_CHUNKS


def damaged(what: str, *names: str, also: frozenset[str] = frozenset()) -> Mutation:
    """Of these files something is not right any more."""
    folders = tuple(name.removesuffix(ROOT) if is_metadata(name) else name for name in names)
    return Mutation(
        what,
        {name: codes_of(name) | also for name in names},
        () if ROOT in names else folders,
        may_refuse=ROOT in names,
    )


# ----- any file -----


def flip(s: Subject) -> Mutation:
    name = s.choose()
    data = bytearray(s.read(name))
    at, bit = s.rng.randrange(len(data)), s.rng.randrange(8)
    data[at] ^= 1 << bit
    s.write(name, bytes(data))
    return damaged(f"bit {bit} of byte {at} of {name} flipped", name)


def empty(s: Subject) -> Mutation:
    name = s.choose()
    s.write(name, b"")
    return damaged(f"{name} emptied", name)


def cut(s: Subject) -> Mutation:
    name = s.choose()
    size = s.rng.randrange(1, (s.path / name).stat().st_size)
    os.truncate(s.path / name, size)
    return damaged(f"{name} cut to {size} bytes", name)


def grow(s: Subject) -> Mutation:
    name = s.choose()
    more = s.rng.randbytes(s.rng.choice((1, 7, 5000)))
    s.write(name, s.read(name) + more)
    return damaged(f"{len(more)} bytes behind {name}", name)


def overwrite(s: Subject) -> Mutation:
    name = s.choose()
    data = s.read(name)
    s.write(name, s.rng.randbytes(len(data)))
    return damaged(f"{name} overwritten with noise", name)


def remove(s: Subject) -> Mutation:
    name = s.choose()
    (s.path / name).unlink()
    return damaged(f"{name} removed", name)


def swap(s: Subject) -> Mutation:
    first = s.choose()
    before = s.read(first)
    second = s.choose(lambda name: s.read(name) != before)
    s.write(first, s.read(second))
    s.write(second, before)
    return damaged(f"{first} and {second} swapped", first, second)


def copy_over(s: Subject) -> Mutation:
    """As a copy tool that mixes files up: alike ones are the hardest to tell apart."""
    name = s.choose(lambda name: name != ROOT)
    alike = is_shard if is_shard(name) else is_metadata if is_metadata(name) else lambda n: not is_shard(n)
    before = s.read(name)
    other = s.choose(lambda n: alike(n) and s.read(n) != before)
    s.write(name, s.read(other))
    return damaged(f"{name} became a copy of {other}", name)


def link(s: Subject) -> Mutation:
    name = s.choose()
    kind = s.rng.choice(("out", "nowhere", "a folder", "within"))
    outside = s.path.parent / f"outside-{s.path.name}"
    data = s.read(name)
    outside.write_bytes(data)
    (s.path / name).unlink()
    if kind == "within":
        # Of a file with the same content no byte is another, so it is no damage.
        other = s.choose(lambda n: n != name and s.read(n) != data)
        (s.path / name).symlink_to(s.path / other)
        return damaged(f"{name} became a link to {other}", name)
    target = {"out": outside, "nowhere": s.path / "nowhere", "a folder": s.path / "image"}[kind]
    (s.path / name).symlink_to(target)
    return damaged(f"{name} became a link to {kind}", name, also=OF_LINKS)


# ----- what is no part of a store -----


def stray_file(s: Subject) -> Mutation:
    folder = s.rng.choice(s.folders())
    names = (
        ".DS_Store",
        "notes.txt",
        "0.partial",
        "99",
        "01",
        ".zattrs",
        "c",
        "zarr.json",
        "zarr.json~",
        "\x07\n",
        "Å",
    )
    taken = {path.name for path in (s.path / folder).iterdir()}
    name = f"{folder}/{s.rng.choice([name for name in names if name not in taken])}".lstrip("/")
    s.write(name, s.rng.randbytes(s.rng.choice((0, 1, 100))))
    return Mutation(f"stray file {name!r}", {_as_listed(name): OF_STRAYS}, (_as_listed(name),))


def stray_folder(s: Subject) -> Mutation:
    folder = s.rng.choice(s.folders())
    names = ("more", "99", "01", ".zarr", "c", "keypoints", "volumes", "patches")
    taken = {path.name for path in (s.path / folder).iterdir()}
    name = f"{folder}/{s.rng.choice([name for name in names if name not in taken])}".lstrip("/")
    (s.path / name).mkdir()
    return Mutation(f"stray folder {name}", {name: OF_STRAYS}, (name,))


def _as_listed(name: str) -> str:
    """How a finding shows a name: blanks as one, no control signs."""
    text = " ".join(name.split())
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


# ----- metadata -----


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict | list) and value:
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from _leaves(value[key], (*path, key))
    else:
        yield path


def _other_value(rng: random.Random, value: Any) -> Any:
    """Another value, most often of the same kind."""
    near: list[Any] = [None, "", 0, -1, 10**18, 1e300, True, [], {}, "x"]
    if isinstance(value, bool):
        near += [not value] * 10
    elif isinstance(value, int):
        near += [value + 1, value - 1, value * 2, -value, float(value)] * 3
    elif isinstance(value, float):
        near += [value + 1, value * (1 + 2**-52), -value] * 3
    elif isinstance(value, str):
        near += [value + "x", value[:-1], value.upper(), value[::-1]] * 3
    return rng.choice([other for other in near if _differs(other, value)])


def _differs(one: Any, other: Any) -> bool:
    return json.dumps(one) != json.dumps(other)


def edit_leaf(s: Subject) -> Mutation:
    name = s.choose(is_metadata)
    value = json.loads(s.read(name))
    *path, last = s.rng.choice(list(_leaves(value)))
    place = value
    for key in path:
        place = place[key]
    before = place[last]
    action = s.rng.choice(("change", "change", "change", "remove", "add"))
    if action == "remove":
        del place[last]
    elif action == "add" and isinstance(place, dict):
        place[f"{last}x"] = before
    else:
        place[last] = _other_value(s.rng, before)
    s.write(name, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())
    return damaged(f"{name}: {[*path, last]} {action}, from {before!r}", name)


def edit_blanks(s: Subject) -> Mutation:
    name = s.choose(is_metadata)
    text = s.read(name).decode()
    way = s.rng.choice(("indent", "compact", "end", "line", "escape"))
    value = json.loads(text)
    other = {
        "indent": json.dumps(value, indent=3, ensure_ascii=False) + "\n",
        "compact": json.dumps(value, separators=(",", ":"), ensure_ascii=False),
        "end": text + " ",
        "line": text.replace("\n", "\r\n", 1),
        "escape": text.replace('"zarr_format"', '"\\u007aarr_format"'),
    }[way]
    s.write(name, other.encode())
    return damaged(f"{name}: other blanks ({way})", name)


# ----- content, written validly -----


def edit_row(s: Subject) -> Mutation:
    """The chunk is encoded again by zarr-python, with a checksum that fits."""
    chunk = s.choose(lambda name: not is_shard(name) and not is_metadata(name))
    table = chunk.partition("/c/")[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = zarr.open_array(s.path / table, mode="r+", config={"write_empty_chunks": True})
        values = np.asarray(array[...])
        flat = values.reshape(-1).view(f"u{values.itemsize}")
        at, bit = s.rng.randrange(len(flat)), s.rng.randrange(8 * values.itemsize)
        flat[at] ^= flat.dtype.type(1 << bit)
        array[...] = values
    return damaged(f"bit {bit} of value {at} of {table}", chunk)


def _write_units(
    s: Subject, images: list[np.ndarray], gaussians: list[np.ndarray | None], units: set[int]
) -> list[str]:
    """Write the shards of some units again; gives the names of those that are others now."""
    layout, changed = s.made.layout, []
    for unit in sorted(units):
        names = [f"image/{shard_key(unit, 4)}"]
        if layout.gaussian_dtype is not None:
            names.append(f"gaussian/{shard_key(unit, 5)}")
        before = {name: s.read(name) for name in names}
        write_unit(s.path, layout, unit, ((images[i], gaussians[i]) for i in layout.unit_patches(unit)))
        changed += [name for name in names if s.read(name) != before[name]]
    return changed


def _patches(s: Subject) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
    return list(s.made.images), list(s.made.gaussians) or [None] * len(s.made.images)


def edit_voxel(s: Subject) -> Mutation:
    images, gaussians = _patches(s)
    patch = s.rng.randrange(len(images))
    image = images[patch].copy()
    place = tuple(s.rng.randrange(n) for n in image.shape)
    image[place] = 0 if image[place] else 1
    images[patch] = image
    changed = _write_units(s, images, gaussians, {patch // s.made.layout.patches_per_shard})
    return damaged(f"voxel {place} of patch {patch}", *changed)


def edit_target(s: Subject) -> Mutation:
    images, gaussians = _patches(s)
    patch = s.rng.randrange(len(images))
    target = gaussians[patch]
    if target is None:
        return edit_voxel(s)
    target = target.copy()
    place = tuple(s.rng.randrange(n) for n in target.shape)
    target[place] = 0.25 if target[place] != 0.25 else 0.5
    gaussians[patch] = target
    changed = _write_units(s, images, gaussians, {patch // s.made.layout.patches_per_shard})
    return damaged(f"value {place} of the Gaussian of patch {patch}", *changed)


def swap_patches(s: Subject) -> Mutation:
    images, gaussians = _patches(s)
    pairs = [
        (a, b) for a in range(len(images)) for b in range(a) if not np.array_equal(images[a], images[b], equal_nan=True)
    ]
    a, b = s.rng.choice(pairs)
    images[a], images[b] = images[b], images[a]
    if s.rng.random() < 0.5:
        gaussians[a], gaussians[b] = gaussians[b], gaussians[a]
    changed = _write_units(s, images, gaussians, {i // s.made.layout.patches_per_shard for i in (a, b)})
    return damaged(f"patches {a} and {b} swapped", *changed)


KINDS: Final[dict[Callable[[Subject], Mutation], int]] = {
    flip: 8,
    empty: 2,
    cut: 3,
    grow: 2,
    overwrite: 1,
    remove: 2,
    swap: 3,
    copy_over: 2,
    link: 2,
    stray_file: 2,
    stray_folder: 1,
    edit_leaf: 8,
    edit_blanks: 2,
    edit_row: 4,
    edit_voxel: 2,
    edit_target: 1,
    swap_patches: 2,
}
"""Every kind, and how often it is tried beside the others."""


class Ward:
    """A store of every design, of which the audit says nothing; mutations are tried on copies of them.

    Args:
        folder: To work in.
        seed: Of all mutations.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self._seed = seed
        self._subjects: dict[str, Subject] = {}
        for k, (name, design) in enumerate(DESIGNS.items()):
            made = make_store(folder / f"made-{k}", design)
            findings = validate(made.path, "full").findings
            assert not findings, f"a clean store ({name}) gives {_shown(findings)}"
            self._subjects[name] = Subject(made, folder / f"copy-{k}.zarr")

    def damage(self, number: int) -> tuple[Subject, Mutation]:
        """Damage one of the copies; gives it, and what was done to it."""
        rng = random.Random(f"{self._seed}-{number}")
        design = rng.choice(list(self._subjects))
        subject = self._subjects[design]
        subject.rng = rng
        kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
        return subject, kind(subject)

    def trials_of(self, kind: Callable[[Subject], Mutation], seed: int) -> Iterator[tuple[Subject, str, str]]:
        """One kind on a copy of each design: the copy, healed again, what was done to it, and what was missed."""
        for design, subject in self._subjects.items():
            subject.rng = random.Random(f"{seed}-{kind.__name__}-{design}")
            mutation = kind(subject)
            problem = missed(subject.path, mutation)
            subject.heal(mutation.expected)
            yield subject, f"{design}: {mutation.what}", problem

    def trial(self, number: int) -> tuple[str, str]:
        """What was done to a copy, which is healed again, and what was missed; empty where nothing was."""
        subject, mutation = self.damage(number)
        problem = missed(subject.path, mutation)
        subject.heal(mutation.expected)
        return mutation.what, problem


def missed(path: Path, mutation: Mutation) -> str:
    """What an audit should have said of a mutation and did not, or should not have said; empty where all is right."""
    try:
        report = validate(path, "full", max_findings=1000)
    except StoreError as error:
        return "" if mutation.may_refuse else f"refused as no store: {error}"
    if report.passed():
        return f"not found; warnings: {_shown(report.findings)}"
    for place, codes in mutation.expected.items():
        if not any(f.code in codes and _is_about(f, place) for f in report.findings):
            return f"no finding of {sorted(codes)} at {place}, but {_shown(report.findings)}"
    if mutation.may_blame:
        wrong = [f for f in report.findings if f.code in BLAMING and not f.where.startswith(mutation.may_blame)]
        if wrong:
            return f"files were blamed that are right: {_shown(wrong)}"
    return ""


def _is_about(finding: Finding, place: str) -> bool:
    return finding.where == place or finding.where.startswith(f"{place}:")


def _shown(findings: Any) -> str:
    return "; ".join(map(str, findings))[:2000] or "nothing"
