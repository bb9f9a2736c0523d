"""One HTML file with everything in it, and nothing in it that reaches outside.

Names of volumes and classes come out of files that somebody else wrote. They go into the page through `html.escape` or
as JSON in which no ``<`` is left, the script puts them in as text, and a content security policy lets run only the one
script and the one style sheet whose hashes it names: a name that is code stays a name.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import tempfile
from html import escape
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import numpy as np

from keypatch import __version__, geometry
from keypatch.audit.counts import KeypointRows
from keypatch.audit.page.choice import choose_patches
from keypatch.audit.page.sections import cards, tiles
from keypatch.audit.page.voxels import choose_step, shrink
from keypatch.audit.panels import OVERLAY, PADDING_COLORS, PALETTE
from keypatch.audit.report import overview
from keypatch.errors import UsageError, WriteError
from keypatch.formats.store import Store
from keypatch.formats.store.disk import resolved, sync_file, writing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from keypatch.audit.stats import StoreStats
    from keypatch.formats.store import Patch
    from keypatch.geometry import Shape3

PATCHES: Final = 12
"""Patches that a page shows."""

BUDGET: Final = 15_000_000
"""Bytes of the file up to which its patches are not made smaller: what a mail takes and a phone opens at once."""

KEYPOINTS: Final = 1000
"""Keypoints of a patch that a page draws; those inside go first."""

_BESIDES: Final = 1_500_000
"""Bytes of the budget that are for everything but voxels."""


def check_page_target(path: Path, store: Path) -> None:
    """Refuse a place where no page may be written, before any work is done.

    Raises:
        UsageError: If it lies in the store, or is a folder.
        WriteError: If its folder is not there.
    """
    if resolved(path).is_relative_to(resolved(store)):
        raise UsageError.at(path, expected="a file outside the store", found="one inside", hint="choose another place")
    if os.path.isdir(path):  # noqa: PTH112 - that of Path may raise
        raise UsageError.at(path, expected="a file", found="a folder", hint="name the file, such as stats.html")
    if not os.path.isdir(path.parent):  # noqa: PTH112
        raise WriteError.at(path, expected="a folder to write into", found="none")


def write_page(result: StoreStats, path: Path, patches: int = PATCHES, seed: int = 0) -> None:
    """Write the page; whatever lay under the name is replaced at the end, at once, or not at all.

    Args:
        result: Of the store, which must still be there: voxels of some patches are read again.
        path: Of the file.
        patches: That are shown.
        seed: Of the choice between patches that show as much.

    Raises:
        UsageError: If the file would lie in the store.
        StoreError: If a patch cannot be read.
        WriteError: If the disk does not take the file.
    """
    check_page_target(path, Path(result.path))
    with _replacing(path) as file:
        for part in _parts(result, patches, seed):
            with writing(path):
                file.write(part)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[TextIO]:
    """A file beside the target that takes its name when all went well, and is gone when not."""
    with writing(path):
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            yield file
        with writing(path):
            sync_file(temporary)
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    """Of this process: a temporary file is its owner's alone, a page is as any other file."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _parts(result: StoreStats, n_patches: int, seed: int) -> Iterator[str]:
    """The document piece by piece; one patch is in memory at a time."""
    store = Store(result.path)
    rows = KeypointRows.of(store)
    chosen = choose_patches(store, rows, n_patches, seed)
    step = choose_step(store.patch_shape, (BUDGET - _BESIDES) * 3 // 4 // max(len(chosen), 1))
    style, script = _resource("page.css"), _resource("page.js")
    yield _head(result, style, script)
    yield _body(result, chosen, step)
    records = []
    for i in chosen:
        patch = store[i]
        small = shrink(patch, step)
        encoded = base64.b64encode(small.voxels.tobytes()).decode("ascii")
        yield f'<script type="text/plain" id="voxels-{i}">{encoded}</script>\n'
        records.append(_record(patch, store.ds_factor, small.voxels.shape, small.window))
    yield f'<script type="application/json" id="data">{_json(_data(store, step, records))}</script>\n'
    yield f"<script>{script}</script>\n</body>\n</html>\n"


def _data(store: Store, step: Shape3, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "classes": list(store.classes),
        "patch_shape": list(store.patch_shape),
        "ds_factor": list(store.ds_factor),
        "step": list(step),
        "palette": [list(color) for color in PALETTE],
        "padding": [list(color) for color in PADDING_COLORS],
        "overlay": OVERLAY,
        "patches": list(records),
    }


def _record(patch: Patch, ds_factor: Shape3, shape: tuple[int, ...], window: tuple[float, float]) -> dict[str, Any]:
    """What the script needs of one patch, coordinates in its voxels."""
    inside = geometry.inside(patch.local_rs_coords, patch.image.shape)
    first = np.argsort(~inside, kind="stable")[:KEYPOINTS]
    return {
        "index": patch.index,
        "volume": patch.volume,
        "kind": patch.kind,
        "fold": patch.fold,
        "origin": patch.origin.tolist(),
        "valid": [patch.valid_start.tolist(), patch.valid_stop.tolist()],
        "spacing": patch.voxel_spacing.tolist(),
        "sigma": (patch.ds_sigma * np.array(ds_factor)).tolist(),
        "shape": list(shape),
        "window": list(window),
        "points": np.round(patch.local_rs_coords[first], 3).tolist(),
        "point_classes": patch.class_index[first].tolist(),
        "annotations": patch.annotation_index[first].tolist(),
        "inside": inside[first].tolist(),
        "hidden": len(inside) - len(first),
    }


def _json(value: object) -> str:
    """JSON in which nothing ends a script or begins a tag."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _resource(name: str) -> str:
    return resources.files("keypatch.audit.page").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii") + "'"


def _head(result: StoreStats, style: str, script: str) -> str:
    policy = f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; base-uri 'none'"
    name = escape(Path(result.path).name)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{name}, keypatch stats</title>\n<style>{style}</style>\n</head>\n"
    )


def _body(result: StoreStats, chosen: Sequence[int], step: Shape3) -> str:
    name = escape(Path(result.path).name)
    facts = "".join(
        f"<div><dt>{escape(label)}</dt><dd>{escape(text)}</dd></div>" for label, text in overview(result)[1:]
    )
    averaged = "" if step == (1, 1, 1) else f", {' × '.join(map(str, step))} voxels averaged to one"
    which = "All patches" if len(chosen) == result.patches else f"{len(chosen)} of {result.patches} patches"
    browser = _resource("browser.html").replace("{which}", escape(f"{which}, 8 bits a voxel{averaged}"))
    return (
        '<body>\n<a class="skip" href="#figures">Skip to the figures</a>\n'
        f'<header><h1>{name}</h1><button type="button" id="scheme">Light or dark</button></header>\n<main>\n'
        f'{tiles(result)}\n<dl class="facts">{facts}</dl>\n{browser}\n'
        f'<h2 id="figures" tabindex="-1">Figures</h2>\n<div class="cards">{cards(result)}</div>\n</main>\n'
        f"<footer>keypatch {escape(__version__)} stats. This file holds all it shows; it loads nothing.</footer>\n"
    )
