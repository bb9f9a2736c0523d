"""The layouts that the files in recipes/ are for, in miniature: each writer plants what it is given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from tests.sources import Truth, truth, write_byu, write_copick, write_mrc, write_ome, write_ome_04, write_star

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SPACING = (10.012, 10.012, 10.012)
CZII_CLASSES = (
    *("apo-ferritin", "beta-amylase", "beta-galactosidase"),
    *("ribosome", "thyroglobulin", "virus-like-particle"),
)


def known(volumes: tuple[str, ...], **about: Any) -> dict[str, Truth]:
    return {volume: truth(seed, spacing=SPACING, **about) for seed, volume in enumerate(volumes)}


def write_byu_layout(folder: Path) -> Mapping[str, Truth]:
    """Folders of grey JPEG slices, and the competition's table."""
    volumes = known(tuple(f"tomo_00e{number}" for number in range(6)), names=("motor",))
    volumes["tomo_00e5"] = Truth(volumes["tomo_00e5"].array, (), (), SPACING)
    volumes = {name: _as_jpegs(folder / "train" / name, volume) for name, volume in volumes.items()}
    write_byu(folder, volumes)
    return volumes


def _as_jpegs(folder: Path, volume: Truth) -> Truth:
    """Write the slices; the truth is what a decoder makes of them."""
    folder.mkdir(parents=True)
    paths = [folder / f"slice_{z:04d}.jpg" for z in range(len(volume.array))]
    for path, plane in zip(paths, volume.array, strict=True):
        Image.fromarray(plane).save(path, quality=95)
    decoded = np.stack([np.asarray(Image.open(path)) for path in paths])
    return Truth(decoded, volume.points, volume.names, volume.spacing)


def write_czii_layout(folder: Path) -> Mapping[str, Truth]:
    volumes = known(("TS_5_4", "TS_69_2"), names=CZII_CLASSES, n_points=8, dtype=np.float32)
    for name, volume in volumes.items():
        path = folder / "static" / "ExperimentRuns" / name / "VoxelSpacing10.000" / "denoised"
        path.parent.mkdir(parents=True)
        write_ome_04(path, volume)
    write_copick(folder / "overlay" / "ExperimentRuns", volumes)
    return volumes


def write_data_portal_layout(folder: Path) -> Mapping[str, Truth]:
    """One class as oriented points, the other as plain ones, each with the metadata that lies beside it."""
    volumes = known(("TS_100_3", "TS_100_6"), names=("cytosolic_ribosome", "ferritin_complex"), dtype=np.float32)
    shapes = {"cytosolic_ribosome": ("104", "orientedPoint"), "ferritin_complex": ("101", "point")}
    for name, volume in volumes.items():
        spacing = folder / "10445" / name / "Reconstructions" / "VoxelSpacing4.990"
        (spacing / "Tomograms" / "100").mkdir(parents=True)
        write_ome(spacing / "Tomograms" / "100" / name, volume, version="0.4")
        for own, (number, shape) in shapes.items():
            entries = [
                {"type": shape, "location": dict(zip("zyx", point, strict=True)), "instance_id": 0}
                for point in volume.of_class(own)
            ]
            file = spacing / "Annotations" / number / f"{own}-1.0_{shape.lower()}.ndjson"
            file.parent.mkdir(parents=True)
            file.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
            file.with_name(f"{own}-1.0.json").write_text("{}")
    return volumes


def write_relion5_layout(folder: Path) -> Mapping[str, Truth]:
    """A project: paths in its files start at its folder, and tomograms are called rec_ and their name."""
    volumes = known(("TS_01", "TS_03"), names=("keypoint",), dtype=np.float32)
    (folder / "Tomograms" / "job006" / "tomograms").mkdir(parents=True)
    tomograms, rows = [], []
    for name, volume in volumes.items():
        file = f"Tomograms/job006/tomograms/rec_{name}.mrc"
        write_mrc((folder / file).with_suffix(""), volume)
        size = [4 * n for n in volume.array.shape[::-1]]
        tomograms.append([name, volume.spacing[0] / 4, 4.0, *size, file])
        for point in volume.points:
            centred = [(point[k] - volume.array.shape[k] / 2) * volume.spacing[k] for k in (2, 1, 0)]
            rows.append([name, *centred])
    sizes = [f"rlnTomoSize{axis}" for axis in "XYZ"]
    columns = ["rlnTomoName", "rlnTomoTiltSeriesPixelSize", "rlnTomoTomogramBinning", *sizes]
    write_star(
        folder / "Tomograms/job006/tomograms.star", "global", [*columns, "rlnTomoReconstructedTomogram"], tomograms
    )
    picks = folder / "Picks" / "job009"
    write_star(
        picks / "particles.star", "particles", ["rlnTomoName", *(f"rlnCenteredCoordinate{a}Angst" for a in "XYZ")], rows
    )
    write_star(
        picks / "optimisation_set.star",
        "optimisation_set",
        ["rlnTomoParticlesFile", "rlnTomoTomogramsFile"],
        [["Picks/job009/particles.star", "Tomograms/job006/tomograms.star"]],
    )
    return volumes


def write_dynamo_layout(folder: Path) -> Mapping[str, Truth]:
    """35 columns, voxels from 1, a part of each position in its shift; the list has paths of another machine."""
    volumes = known(("TS_01", "TS_03"), names=("1", "2"), dtype=np.float32)
    (folder / "tomograms").mkdir()
    rows = []
    for number, (name, volume) in enumerate(volumes.items(), 1):
        write_mrc(folder / "tomograms" / name, volume)
        for (z, y, x), own in zip(volume.points, volume.names, strict=True):
            columns = {4: 0.25, 5: -0.5, 6: 1.0, 20: number, 22: own, 24: x + 0.75, 25: y + 1.5, 26: z}
            rows.append(" ".join(str(columns.get(column, 0)) for column in range(1, 36)))
    (folder / "particles.tbl").write_text("\n".join(rows) + "\n")
    (folder / "tomograms.vll").write_text("".join(f"/cluster/project/tomograms/{name}.mrc\n" for name in volumes))
    return volumes


LUNA16_UID = "1.3.6.1.4.1.14519.5.2.1.6279.6001.{:039d}"


def write_luna16_layout(folder: Path) -> Mapping[str, Truth]:
    """Scans of shorts in two subsets, each turned or mirrored in its own way; the last has no nodule."""
    spacing_mm, rows, volumes = np.array([2.5, 0.75, 0.75]), [], {}
    turns = [np.eye(3), np.diag([-1.0, -1.0, 1.0]), np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])]
    for number in range(10):
        uid = LUNA16_UID.format(number)
        spacing = (2.5e7, 0.75e7, 0.75e7)
        scan = truth(number, names=("nodule",), dtype=np.int16, spacing=spacing, n_points=0 if number == 9 else 2)
        turn, offset = turns[number % 3], np.array([-180.5, -210.25, -300.0 + number])
        _write_mhd(folder / f"subset{number % 2}" / f"{uid}.mhd", scan.array, spacing_mm[::-1], turn, offset)
        for point in scan.points:
            world = offset + turn @ (spacing_mm * point)[::-1]
            rows.append([uid, *(repr(float(value)) for value in world), "5.65"])
        volumes[uid] = scan
    lines = ["seriesuid,coordX,coordY,coordZ,diameter_mm", *(",".join(row) for row in rows)]
    (folder / "annotations.csv").write_text("\n".join(lines) + "\n")
    return volumes


def _write_mhd(
    path: Path,
    array: np.ndarray,
    spacing_xyz: np.ndarray,
    turn_xyz: np.ndarray,
    offset_xyz: np.ndarray,
) -> None:
    """A header of text and bare voxels; ITK keeps each axis' direction in three numbers that follow each other."""
    path.parent.mkdir(exist_ok=True)
    header = {
        "ObjectType": "Image",
        "NDims": 3,
        "BinaryData": True,
        "BinaryDataByteOrderMSB": False,
        "CompressedData": False,
        "TransformMatrix": " ".join(repr(float(value)) for value in turn_xyz.T.ravel()),
        "Offset": " ".join(repr(float(value)) for value in offset_xyz),
        "CenterOfRotation": "0 0 0",
        "ElementSpacing": " ".join(repr(float(value)) for value in spacing_xyz),
        "DimSize": " ".join(map(str, array.shape[::-1])),
        "ElementType": "MET_SHORT",
        "ElementDataFile": path.with_name(path.name.removesuffix(".mhd") + ".raw").name,
    }
    path.write_text("".join(f"{key} = {value}\n" for key, value in header.items()))
    path.with_name(header["ElementDataFile"]).write_bytes(array.astype("<i2").tobytes())


LAYOUTS: dict[str, Callable[[Path], Mapping[str, Truth]]] = {
    "byu": write_byu_layout,
    "czii": write_czii_layout,
    "data_portal": write_data_portal_layout,
    "relion5": write_relion5_layout,
    "dynamo": write_dynamo_layout,
    "luna16": write_luna16_layout,
}
"""Name of the recipe to what writes its layout; gives the volumes by the id that they get in the store."""
