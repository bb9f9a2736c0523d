"""``keypatch convert``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keypatch.cli import check_text, printing, signals
from keypatch.cli.progress import Bar
from keypatch.cli.sections import Sectioned
from keypatch.cli.source_flags import ANNOTATION_FLAGS, VOLUME_FLAGS, option, source_flags
from keypatch.errors import EXIT_FINDINGS, KeypatchError, UsageError

if TYPE_CHECKING:
    from keypatch.converters.build import BuildOptions, OnError
    from keypatch.converters.catalog import Catalog
    from keypatch.converters.plan import Plan
    from keypatch.converters.recipe import Recipe


SECTIONS = {
    "Sources": (
        "annotations",
        "voxel_spacing",
        "resample_to",
        "coordinate_spacing",
        *VOLUME_FLAGS,
        *ANNOTATION_FLAGS,
        "map_",
        "classes",
        "unannotated",
    ),
    "Patches": (
        "patch_shape",
        "centered",
        "jitter",
        "multi",
        "hard_negatives",
        "negatives",
        "grid",
        "padding",
        "folds",
        "seed",
    ),
    "Target": ("ds_factor", "sigma_angstrom", "sigma_ds", "gaussian", "gaussian_dtype"),
    "Storage": ("out", "dtype", "clip_percentiles", "codec", "chunk_shape", "shard_size"),
    "This run": ("dry_run", "workers", "on_error", "restart", "overwrite", "strict", "as_json", "help"),
}


_SIGMAS = frozenset({"sigma_angstrom", "sigma_ds"})


class _Sectioned(Sectioned):
    sections = SECTIONS


@click.command(cls=_Sectioned, epilog="What every array and attribute of a store means: schema.md.")
@click.argument("volumes", nargs=-1, required=True)
@click.option("-a", "--annotations", multiple=True, help="Path, glob or pattern with {volume} and {class}; repeatable.")
@option("-o", "--out", type=click.Path(path_type=Path), help="The store to make.")
@option("--patch-shape", metavar="D,H,W", help="Voxels of a patch, one number or z,y,x.  [128,128,128]")
@option("--ds-factor", metavar="F", help="Voxels a coarse voxel, one number or z,y,x.  [16]")
@option(
    "--sigma-angstrom", metavar="Å", help="Sigma of the Gaussian in Å, one number or z,y,x; each volume by its spacing."
)
@option("--sigma-ds", metavar="S", help="Sigma in coarse voxels, one number or z,y,x.  [1.0]")
@click.option("--gaussian/--no-gaussian", default=None, help="Store the Gaussian targets.  [yes]")
@option("--gaussian-dtype", metavar="DTYPE", help="float32 or float16.  [float32]")
@option("--centered", metavar="N", help="Patches per annotation, with it near the centre.  [1]")
@option(
    "--jitter",
    metavar="J",
    help="Largest displacement of these in voxels, one number or z,y,x.  [a quarter of the patch]",
)
@option("--multi", metavar="N", help="Patches per volume that hold two annotations or more.  [0]")
@option("--hard-negatives", metavar="N", help="Patches per volume beside an annotation, with none inside.  [0]")
@option("--negatives", metavar="N", help="Patches per volume anywhere, with none inside.  [0]")
@option("--grid", metavar="STRIDE", help="Cover each volume with patches at this stride in voxels, at most the patch.")
@option("--seed", metavar="N", help="Of all random draws.  [0]")
@option("--folds", metavar="K", help="Share the volumes out into K folds.  [0: none]")
@option("--classes", metavar="A,B", help="Classes in this order, no others.  [all, sorted]")
@option("--unannotated", metavar="WHAT", help="Volumes that no file names: skip or negative.  [skip]")
@option("--padding", metavar="HOW", help="Outside a volume: zero, mean, edge, reflect or inside.  [zero]")
@option("--dtype", metavar="DTYPE", help="Of the stored images.  [source]")
@option("--clip-percentiles", metavar="LOW,HIGH", help="These become the dtype's extremes.  [0.1,99.9 if needed]")
@option("--codec", metavar="CODEC", help="auto, none, zstd[:LEVEL], lz4[:LEVEL] or blosc[:LEVEL].  [auto]")
@option("--chunk-shape", metavar="D,H,W", help="Inner chunks, for who reads windows.  [a patch, 2 to 8 MiB]")
@option("--shard-size", metavar="SIZE", help="Raw bytes of a shard at most.  [192MiB]")
@option("--voxel-spacing", metavar="Å", help="Of every volume, one number or z,y,x: declares or overrides it.")
@option("--resample-to", metavar="Å", help="Bring every volume to this spacing, one number or z,y,x.  [as they are]")
@option(
    "--coordinate-spacing",
    metavar="Å",
    help="Of the voxels that coordinates in voxels count, where not the volume's own: picked on a binned tomogram.",
)
@source_flags
@click.option(
    "--map",
    "map_",
    multiple=True,
    metavar="NAME=VOLUME",
    help="What a volume's name in the annotations means: --map TS_01=13pf_MT; repeatable.",
)
@click.option(
    "--dry-run", is_flag=True, help="Check the sources and say what would be made; write nothing. Exit 1 on errors."
)
@click.option("--restart", is_flag=True, help="Drop what an earlier, unfinished build of this store has kept.")
@click.option("--workers", type=click.IntRange(1), help="Processes.  [the cores; 1 for a small store]")
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    help="After a unit that fails: stop, or finish the others first.  [stop]",
)
@click.option("--overwrite", is_flag=True, help="Replace a store that is there, once the new one is whole.")
@click.option("--strict", is_flag=True, help="Exit 1, before building, if anything is left out or warned of.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    volumes: tuple[str, ...],
    out: Path | None,
    map_: tuple[str, ...],
    *,
    dry_run: bool,
    overwrite: bool,
    restart: bool,
    workers: int | None,
    on_error: OnError,
    strict: bool,
    as_json: bool,
    **flags: object,
) -> None:
    """Build a store from VOLUMES and annotations, or from a recipe file (VOLUMES = recipe.toml; flags win).

    VOLUMES are paths, globs or patterns. {volume} and {class} pair files in any layout:

    \b
      keypatch convert tomo.mrc -a picks.star -o out.zarr
      keypatch convert 'train/*' -a train_labels.csv -o out.zarr \\
          --patch-shape 160,288,288 --sigma-angstrom 200
      keypatch convert 'static/ExperimentRuns/{volume}/VoxelSpacing10.000/denoised.zarr' \\
          -a 'overlay/ExperimentRuns/{volume}/Picks/{class}.json' -o out.zarr

    Look before building: --dry-run, and keypatch inspect on a volume or an annotation file.
    """  # noqa: D301
    from keypatch.converters.build import BuildOptions
    from keypatch.converters.catalog import build_catalog
    from keypatch.converters.recipe import Recipe
    from keypatch.converters.target import check_target

    settings = _settings(volumes, {**flags, "map": map_})
    target = out or (Path(str(settings["out"])) if "out" in settings else None)
    settings.pop("out", None)
    if target is None and not dry_run:
        raise UsageError.at("--out", expected="where the store shall lie", found="nothing", hint="give -o OUT.zarr")
    recipe = Recipe.from_mapping(settings)
    if target is not None and not dry_run:
        check_target(target, overwrite=overwrite)
    catalog = build_catalog(recipe, target)
    if not as_json:
        _print_check(catalog, everything=dry_run)
    plan = None if catalog.has_errors else _planned(recipe, catalog, as_json=as_json)
    if plan is None:
        if as_json:
            printing.as_json({"store": None, "digest": None, **_told(catalog), "recipe": recipe.to_json()})
        printing.note("keypatch: nothing was built: the sources cannot be right as they are read")
        raise click.exceptions.Exit(EXIT_FINDINGS)
    stopped = strict and (bool(plan.left_out or plan.warnings) or any(f.severity != "note" for f in catalog.findings))
    digest = None
    if target is not None and not dry_run and not stopped:
        options = BuildOptions(overwrite=overwrite, restart=restart, workers=workers, on_error=on_error)
        digest = _build(plan, target, options)
    if as_json:
        printing.as_json(_as_json(plan, target, digest))
    else:
        click.echo(_as_text(plan, target, digest))
    if stopped:
        printing.note("keypatch: nothing was built: --strict, and there are things left out or warnings")
        raise click.exceptions.Exit(EXIT_FINDINGS)


def _planned(recipe: Recipe, catalog: Catalog, *, as_json: bool) -> Plan:
    """The plan; where there can be none, JSON on stdout has no place for what the check found, and stderr gets it."""
    from keypatch.converters.plan import plan_catalog

    try:
        return plan_catalog(recipe, catalog)
    except KeypatchError:
        if as_json:
            _print_check(catalog, everything=False)
        raise


def _print_check(catalog: Catalog, *, everything: bool) -> None:
    """All of it as the result of a dry run; else what a person should see before the building, beside the result."""
    if everything:
        click.echo(check_text.full(catalog.findings))
    elif text := check_text.short(catalog.findings):
        printing.note(text)


def _build(plan: Plan, target: Path, options: BuildOptions) -> str:
    from keypatch.converters.build import convert, kept_units

    try:
        with Bar() as bar:
            return convert(plan, target, options, bar).digest
    except KeyboardInterrupt as end:
        kept = f"{kept_units(target)} of {plan.layout.n_units} units are finished and kept"
        printing.note(f"keypatch: interrupted; {kept}: the same command goes on")
        raise click.exceptions.Exit(signals.exit_code(end)) from None


def _settings(volumes: tuple[str, ...], flags: dict[str, object]) -> dict[str, object]:
    """What the recipe file says, then what the flags say."""
    from keypatch.converters.recipe import read_recipe_file

    given = {name: value for name, value in flags.items() if value not in (None, ())}
    if not (len(volumes) == 1 and volumes[0].endswith(".toml")):
        return {"volumes": volumes, **given}
    recipe = read_recipe_file(Path(volumes[0]))
    if given.keys() & _SIGMAS:  # one of the two says it all: the file's other one has lost
        recipe = {name: value for name, value in recipe.items() if name not in _SIGMAS}
    return {**recipe, **given}


def _as_json(plan: Plan, target: Path | None, digest: str | None) -> dict[str, Any]:
    from keypatch.converters.plan import count_by_kind

    layout = plan.layout
    return {
        "store": None if target is None else str(target),
        "digest": digest,
        "volumes": len(plan.catalog.volumes),
        "resampled": sum(volume.resampling is not None for volume in plan.catalog.volumes),
        "patches": {"total": layout.n_patches, **count_by_kind(plan)},
        "keypoints": len(plan.columns["keypoints/class_index"]),
        "annotations": _annotations_by_class(plan),
        "image_bytes": layout.n_patches * layout.image_bytes,
        "gaussian_bytes": layout.n_patches * layout.gaussian_bytes,
        "units": layout.n_units,
        "patches_per_shard": layout.patches_per_shard,
        **_told(plan.catalog),
        "left_out": [omission.to_json() for omission in plan.left_out],
        "warnings": list(plan.warnings),
        "recipe": plan.recipe.to_json(),
    }


def _told(catalog: Catalog) -> dict[str, Any]:
    return {
        "left_out": [omission.to_json() for omission in catalog.left_out],
        "warnings": list(catalog.warnings),
        "findings": [found.to_json() for found in catalog.findings],
    }


def _as_text(plan: Plan, target: Path | None, digest: str | None) -> str:
    from keypatch.converters.plan import count_by_kind

    layout = plan.layout
    image = _array_text(layout.patch_shape, layout.image_dtype, layout.n_patches * layout.image_bytes)
    target_shape = (layout.n_classes, *layout.grid)
    gaussian = _array_text(target_shape, layout.gaussian_dtype, layout.n_patches * layout.gaussian_bytes)
    text = printing.rows(
        [
            ("store", f"{target or '-'}" + ("" if digest else " (not written)")),
            ("volumes", _volumes_text(plan)),
            ("annotations", printing.counted(_annotations_by_class(plan))),
            ("patches", f"{layout.n_patches} ({printing.counted(count_by_kind(plan))})"),
            ("keypoints", f"{len(plan.columns['keypoints/class_index'])} as seen from the patches"),
            ("image", image),
            ("gaussian", gaussian if layout.gaussian_dtype else "not stored"),
            ("shards", f"{layout.n_units} of up to {printing.plural(layout.patches_per_shard, 'patch', 'patches')}"),
            *([("check", check_text.counted(plan.catalog.findings)), ("digest", digest)] if digest else []),
        ]
    )
    if plan.left_out:
        text += "\nleft out\n" + printing.omissions([omission.to_json() for omission in plan.left_out])
    if plan.warnings:
        text += "\nwarnings\n" + "\n".join(f"  {warning}" for warning in plan.warnings)
    return text


def _volumes_text(plan: Plan) -> str:
    volumes, target = plan.catalog.volumes, plan.recipe.resample_to
    if target is None:
        return str(len(volumes))
    n = sum(volume.resampling is not None for volume in volumes)
    kept = f", {len(volumes) - n} as they are: they have this spacing" if n < len(volumes) else ""
    return f"{len(volumes)} ({n} resampled to {'×'.join(f'{s:g}' for s in dict.fromkeys(target))} Å{kept})"


def _array_text(shape: tuple[int, ...], dtype: object, n_bytes: int) -> str:
    return f"{printing.shape(shape)} {dtype}, {printing.size(n_bytes)} raw"


def _annotations_by_class(plan: Plan) -> dict[str, int]:
    indices = plan.columns["annotations/class_index"].tolist()
    return {name: indices.count(k) for k, name in enumerate(plan.catalog.classes)}
