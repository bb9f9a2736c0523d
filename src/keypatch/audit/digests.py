"""The digests of a store, computed again: each file that is another is named, and so is a root that was edited."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from keypatch.audit.attributes import is_newer
from keypatch.errors import UsageError
from keypatch.formats.store.digest import (
    ROOT_METADATA,
    SHARD_PREFIXES,
    file_sha256,
    metadata_digest,
    root_text,
    store_digest,
)
from keypatch.formats.store.disk import read_metadata

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from keypatch.audit.findings import Findings
    from keypatch.audit.layout import Target
    from keypatch.audit.tree import Tree

_KEYS: Final = {"metadata", "store", "files"}
_PREFIX_DIGITS: Final = 8
"""Least hexadecimal digits by which a person names a digest: two stores share them once in 4 * 10^9."""

_STORE_DIGITS: Final = 64


@dataclass(frozen=True)
class FileDigests:
    """What the digests say of the files beside the shards.

    Attributes:
        files: Their digests, by path; None where one could not be read.
        others: Files that are not those that were written, so that nothing is to be concluded from them.
    """

    files: Mapping[str, str] | None = None
    others: frozenset[str] = frozenset()

    @property
    def metadata(self) -> str | None:
        """The digest of all of them."""
        return None if self.files is None else metadata_digest(self.files)


def check_files(folder: Path, tree: Tree, attributes: Mapping[str, Any], findings: Findings) -> FileDigests:
    """Hash every file but the shards and the root's ``zarr.json``, and name those that are not as recorded.

    Args:
        folder: Of the store.
        tree: Its files.
        attributes: Of the root.
        findings: Added to; files that it names as missing are not named again.
    """
    files = _file_digests(folder, tree, findings)
    if files is None:
        return FileDigests()
    recorded, metadata = _recorded(attributes), metadata_digest(files)
    listed, digest = recorded.get("files"), recorded.get("metadata")
    if _is_list(listed) and metadata_digest(listed) == digest:
        return FileDigests(files, frozenset(_compare(listed, files, tree, findings)))
    where = f"{ROOT_METADATA}: digests."
    if metadata != digest:
        findings.add("KP115", f"{where}metadata", expected=digest, found=f"{metadata} of the files that are there")
    elif "files" in recorded:
        findings.add("KP115", f"{where}files", expected=f"the list of digest {digest}", found="another")
    return FileDigests(files)


def check_digests(target: Target, findings: Findings) -> str | None:
    """Compute the digest of the store and hold it, and the text of the root, against what is recorded.

    Returns:
        The digest of the store, as computed; None where a file could not be read.
    """
    check_root_text(target, findings)
    recorded, metadata = _recorded(target.attributes), target.digests.metadata
    if target.tree.links_out or target.tree.unreadable:
        metadata = None  # what lies behind them could be anything
    if (
        isinstance(target.attributes.get("digests"), dict)
        and set(recorded) != _KEYS
        and not is_newer(target.attributes)
    ):
        found = ", ".join(map(str, recorded)) or "none"
        findings.add("KP106", f"{ROOT_METADATA}: digests", expected="metadata, store and files", found=found[:120])
    try:
        # With the recorded metadata digest, so that a damaged file is not reported as damaged attributes too.
        own = store_digest(str(recorded.get("metadata")), target.attributes)
        whole = None if metadata is None else store_digest(metadata, target.attributes)
    except ValueError as error:
        findings.add("KP106", ROOT_METADATA, expected="finite numbers", found=error)
        return None
    if own != recorded.get("store"):
        findings.add("KP116", f"{ROOT_METADATA}: digests.store", expected=recorded.get("store"), found=own)
    return whole


def checked_digest(text: str) -> str:
    """A digest, or the beginning of one, as a person gives it.

    Raises:
        UsageError: If it is none.
    """
    digest = text.strip().lower()
    if _PREFIX_DIGITS <= len(digest) <= _STORE_DIGITS and set(digest) <= set("0123456789abcdef"):
        return digest
    expected = f"{_PREFIX_DIGITS} to {_STORE_DIGITS} hexadecimal digits"
    raise UsageError.at("--expect-digest", expected=expected, found=repr(text), hint="keypatch inspect STORE shows it")


def check_expected(expected: str, digest: str | None, findings: Findings) -> None:
    """Report a store that is not the one that was asked for.

    Args:
        expected: The digest that it should have, or the first digits of it.
        digest: Computed from its files; None where that was not possible.
        findings: Added to.
    """
    if digest is None or not digest.startswith(expected):
        found = digest or "none, since not all of its files can be read"
        findings.add("KP119", "digest of the store", expected=expected, found=found)


def _file_digests(folder: Path, tree: Tree, findings: Findings) -> dict[str, str] | None:
    digests: dict[str, str] | None = {}
    # What lies behind a link that leaves the store is not read; it was said that it is one.
    names = (name for name in tree.files if name != ROOT_METADATA and not name.startswith(SHARD_PREFIXES))
    for name in sorted(names):
        try:
            digest = file_sha256(folder / name).hex()
        except OSError as error:
            found = error.strerror or error
            findings.add("KP117", name, expected="a readable file", found=found, within=name.partition("/c/")[0])
            digests = None
        else:
            if digests is not None:
                digests[name] = digest
    return digests


def _compare(listed: Mapping[str, str], files: Mapping[str, str], tree: Tree, findings: Findings) -> Iterator[str]:
    """Report files that are not as listed, and give their names."""
    for name in sorted(listed.keys() | files.keys()):
        if files.get(name) == listed.get(name):
            continue
        yield name
        if name not in listed:  # the same words as `check_tree` has, which does not judge the files of every array
            size = tree.files.get(name, 0)
            findings.add("KP111", name, expected="no such file", found=f"{size} bytes", within="strays")
        elif name in files or not findings.name(name):  # else said by who looked for it
            found = f"sha256 {files[name]}" if name in files else "no such file"
            findings.add("KP115", name, expected=f"sha256 {listed[name]}", found=found, within="files")


def _recorded(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    recorded = attributes.get("digests")
    return recorded if isinstance(recorded, dict) else {}  # said by `check_attributes`


def _is_list(files: object) -> TypeGuard[dict[str, str]]:
    return isinstance(files, dict) and all(isinstance(digest, str) for digest in files.values())


def check_root_text(target: Target, findings: Findings) -> None:
    """The digests cover the content of the root's attribute; the rest of that file follows from it, byte for byte."""
    if is_newer(target.attributes):
        return
    try:
        text = read_metadata(target.folder / ROOT_METADATA)
        expected = root_text(target.attributes)
    except (OSError, ValueError):  # NaN: said by `_check_store`
        return
    if text == expected:
        return
    there, wanted = text.splitlines(keepends=True), expected.splitlines(keepends=True)
    pairs = enumerate(zip(there, wanted, strict=False))
    k = next((k for k, (one, other) in pairs if one != other), min(len(there), len(wanted)))
    where = f"{ROOT_METADATA}: line {k + 1}"
    findings.add("KP120", where, expected=_quoted(wanted[k : k + 1]), found=_quoted(there[k : k + 1]))


def _quoted(lines: list[bytes]) -> str:
    return repr(lines[0].decode(errors="backslashreplace"))[:100] if lines else "no such line"
