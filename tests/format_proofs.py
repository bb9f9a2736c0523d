"""One proof for every format: a file, what it must give, and how that was got without keypatch.

The tests hold the readers against these; `python -m tests.formats_table` makes docs/formats.md of them. A format
without a row here fails a test, so that none is listed as read that was not shown to be.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import emfile
import numpy as np
from PIL import Image
from tests import format_readings as readings
from tests.format_readings import Box, Cells, Json, ListInCell, Packed, Point, ReadPoint, ReadVoxel, Sum, Xml


@dataclass(frozen=True)
class PointProof:
    """One point of an annotation file.

    Attributes:
        format: Name in the registry.
        file: Path in the shared data; of a made file its name.
        made: Content of a file, where the shared data has none of this format.
        row: `source_row` of the point.
        read: Gets the point in the file's unit, z, y, x, without keypatch.
        point: The same as a number.
        convention: unit, axis order, zero, index base as the reader must declare them.
        inferred: Which of these no text states outright.
        volume: A file of the shared data that the point is placed in; None for a volume of `shape` and `spacing`.
        shape: Voxels of the volume.
        spacing: Å of the volume.
        voxel: The point as voxel index, worked out by hand.
        rule: How, for a person.
        options: Of the reader.
        extra: To install; "" for none.
    """

    format: str
    file: str
    row: int
    read: ReadPoint
    point: Point
    convention: tuple[str, str, str, int]
    inferred: tuple[str, ...]
    voxel: Point
    rule: str
    made: str | bytes | None = None
    volume: str | None = None
    shape: tuple[int, int, int] = (1000, 1000, 1000)
    spacing: Point = (10.0, 10.0, 10.0)
    options: Mapping[str, Any] = field(default_factory=dict)
    extra: str = ""


@dataclass(frozen=True)
class VolumeProof:
    """One voxel of a volume file.

    Attributes:
        format: Name in the registry.
        file: Path in the shared data; of a made file its name.
        make: Writes the file by the format's own library, where the shared data has none.
        read: Gets value and spacing without keypatch.
        by: The library, for a person.
        index: Of the voxel, z, y, x.
        value: There.
        shape: Voxels, z, y, x.
        spacing: Å, z, y, x; None where the file has none.
        unit: What the spacing is read from.
        axes: How the order of the axes is known.
        world: What the world coordinates are read from; "" where the format has none.
        inferred: What the reader says that no text states outright.
        access: What reading one box costs.
        options: Of the reader.
        extra: To install; "" for none.
    """

    format: str
    file: str
    read: ReadVoxel
    by: str
    index: tuple[int, int, int]
    value: float
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float] | None
    unit: str
    axes: str
    world: str
    inferred: tuple[str, ...]
    access: str
    make: Callable[[Path], Path] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    extra: str = ""


# ----- files that are written here, since the shared data has none -----

MADE_SHAPE = (5, 6, 7)


def made_array() -> np.ndarray:
    return np.arange(210, dtype=np.uint8).reshape(MADE_SHAPE)


def make_npy(folder: Path) -> Path:
    np.save(folder / "v.npy", made_array())
    return folder / "v.npy"


def make_em(folder: Path) -> Path:
    emfile.write(folder / "v.em", made_array().astype(np.float32))
    return folder / "v.em"


def make_slices(folder: Path) -> Path:
    (folder / "v").mkdir()
    for z, plane in enumerate(made_array()):
        Image.fromarray(plane).save(folder / "v" / f"slice_{z}.png")
    return folder / "v"


def motive_list() -> bytes:
    """One particle: position 11, 21, 31 in rows 8 to 10, shift 0.5, -1, 0.25 in rows 11 to 13 (from 1)."""
    values = [0.0] * 20
    values[7:13] = [11.0, 21.0, 31.0, 0.5, -1.0, 0.25]
    return struct.pack("<4B3i", 6, 0, 0, 5, 20, 1, 1).ljust(512, b"\0") + struct.pack("<20f", *values)


CBOX = """
data_cryolo

loop_
_CoordinateX #1
_CoordinateY #2
_CoordinateZ #3
_Width #4
_Height #5
_Depth #6
6.25 21.5 50.0 37 37 37

"""


# ----- annotations -----

AFIDS = "matched/afids_mni/tpl-MNI152NLin2009cAsym_"
# The volume's affine has 2 mm on its diagonal and begins at (-96.5, -132.5, -78.5) in RAS; LPS turns x and y round.
AFIDS_VOXEL = ((-4.899 + 78.5) / 2, (2.93275 + 132.5) / 2, (-0.23099999999999998 + 96.5) / 2)
AFIDS_RULE = "(RAS mm - origin) / 2 mm"
LPS_VOXEL = ((3.0 + 78.5) / 2, (20.0 + 132.5) / 2, (-10.0 + 96.5) / 2)
LPS_RULE = "(RAS mm - origin) / 2 mm, RAS = (-x, -y, z)"

POINTS: tuple[PointProof, ...] = (
    PointProof(
        format="portal",
        file="picks.ndjson",
        made='{"type": "point", "location": {"x": 1.5, "y": 20, "z": 33.25}}\n',
        row=0,
        read=Json(("location",), ("z", "y", "x"), line=1),
        point=(33.25, 20, 1.5),
        convention=("voxel", "xyz", "voxel-center", 0),
        inferred=("zero", "index_base"),
        voxel=(33.25, 20, 1.5),
        rule="as it is",
    ),
    PointProof(
        format="copick",
        file="matched/portal_fixture/copick.json",
        row=0,
        read=Json(("points", 0, "location"), ("z", "y", "x")),
        point=(30, 20, 40),
        convention=("angstrom", "xyz", "voxel-center", 0),
        inferred=("zero",),
        volume="matched/portal_fixture/run1.rec",
        voxel=(30 / 14.08, 20 / 14.08, 40 / 14.08),
        rule="Å / 14.08",
    ),
    PointProof(
        format="slicer-markups",
        file=f"{AFIDS}afids.json",
        row=0,
        read=Json(("markups", 0, "controlPoints", 0, "position"), (2, 1, 0), signs=(1, -1, -1)),
        point=(-4.899, -2.93275, 0.23099999999999998),
        convention=("mm", "xyz", "world", 0),
        inferred=(),
        volume=f"{AFIDS}res-02_T1w.nii.gz",
        voxel=AFIDS_VOXEL,
        rule=AFIDS_RULE,
    ),
    PointProof(
        format="points-json",
        file="csv/byu_train_coordinates_forOrigShapes.json",
        row=0,
        read=Json(("10139__ycw2013-11-24-13", 0), (0, 1, 2)),
        point=(409, 820, 152),
        convention=("voxel", "zyx", "voxel-center", 0),
        inferred=("unit", "axis_order", "zero", "index_base"),
        voxel=(409, 820, 152),
        rule="as it is",
    ),
    PointProof(
        format="relion",
        file="matched/cylindra_mt/particles.star",
        row=0,
        read=Cells(8, (4, 3, 2)),
        point=(11.16, 765.48005, -176.94),
        convention=("angstrom", "xyz", "volume-center", 0),
        inferred=("zero",),
        volume="matched/cylindra_mt/13pf_MT.tif",
        voxel=(11.16 / 10.52 + 36 / 2, 765.48005 / 10.52 + 206 / 2, -176.94 / 10.52 + 94 / 2),
        rule="Å / 10.52 + size / 2",
    ),
    PointProof(
        format="stopgap",
        file="matched/portal_fixture/stopgap_star.star",
        row=0,
        read=Cells(22, (8, 7, 6), plus=(12, 11, 10)),
        point=(8.8, 5.6, 2.8),
        convention=("voxel", "xyz", "voxel-center", 1),
        inferred=("zero", "index_base"),
        voxel=(12 - 3.2 - 1, 8 - 2.4 - 1, 4 - 1.2 - 1),
        rule="- 1",
    ),
    PointProof(
        format="cbox",
        file="boxes.cbox",
        made=CBOX,
        row=0,
        read=Box(11),
        point=(50, 40, 24.75),
        convention=("voxel", "xyz", "voxel-center", 0),
        inferred=("index_base", "zero"),
        voxel=(50, 40, 24.75),
        rule="as it is",
    ),
    PointProof(
        format="imod",
        file="imod/multiple_objects_example.mod",
        row=0,
        read=Packed(644, ">3f"),
        point=(134.0, 661.8334350585938, 367.00006103515625),
        convention=("voxel", "xyz", "corner-xy", 0),
        inferred=("unit", "zero"),
        voxel=(134.0, 661.8334350585938 - 0.5, 367.00006103515625 - 0.5),
        rule="- 0.5 in y and x",
    ),
    PointProof(
        format="motive-list",
        file="motl.em",
        made=motive_list(),
        row=0,
        read=Sum((Packed(512 + 28, "<3f"), Packed(512 + 40, "<3f"))),
        point=(31.25, 20, 11.5),
        convention=("voxel", "xyz", "voxel-center", 1),
        inferred=("zero", "index_base"),
        voxel=(30.25, 19, 10.5),
        rule="- 1",
    ),
    PointProof(
        format="byu",
        file="csv/byu_train_labels.csv",
        row=1,
        read=Cells(3, (3, 4, 5), separator=","),
        point=(169, 546, 603),
        convention=("voxel", "zyx", "voxel-center", 0),
        inferred=("zero",),
        voxel=(169, 546, 603),
        rule="as it is",
    ),
    PointProof(
        format="byu-relabelled",
        file="relabelled.csv",
        made="tomo_id,z,y,x,z_shape,y_shape,x_shape,voxel_spacing,coordinates,fold\n"
        'a,75,120,160,300,960,800,15.6,"[(0.25, 0.125, 0.2)]",0\n',
        row=0,
        read=ListInCell(2, 9),
        point=(0.25, 0.125, 0.2),
        convention=("fraction", "zyx", "voxel-center", 0),
        inferred=("zero",),
        shape=(300, 960, 800),
        voxel=(75, 120, 160),
        rule="· shape",
    ),
    PointProof(
        format="copick-csv",
        file="picks.csv",
        made="run_name,x,y,z,transform_00,transform_01,transform_02,transform_03,transform_10,transform_11,transform_12,"
        "transform_13,transform_20,transform_21,transform_22,transform_23,transform_30,transform_31,transform_32,"
        "transform_33,score\nTS_1,100,200,305,1,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1,0.5\n",
        row=0,
        read=Cells(2, (4, 3, 2), separator=","),
        point=(305, 200, 100),
        convention=("angstrom", "xyz", "voxel-center", 0),
        inferred=("zero",),
        voxel=(30.5, 20, 10),
        rule="Å / 10",
    ),
    PointProof(
        format="luna16",
        file="annotations.csv",
        made="seriesuid,coordX,coordY,coordZ,diameter_mm\n1.3.6.1,10,-20,3,5.65\n",
        row=0,
        read=Cells(2, (4, 3, 2), separator=","),
        point=(3, -20, 10),
        convention=("mm", "xyz", "world", 0),
        inferred=("zero",),
        volume=f"{AFIDS}res-02_T1w.nii.gz",
        voxel=LPS_VOXEL,
        rule=LPS_RULE,
    ),
    PointProof(
        format="napari",
        file="points.csv",
        made="index,axis-0,axis-1,axis-2\n0.0,1.5,2,3\n",
        row=0,
        read=Cells(2, (2, 3, 4), separator=","),
        point=(1.5, 2, 3),
        convention=("voxel", "zyx", "voxel-center", 0),
        inferred=("unit", "zero"),
        voxel=(1.5, 2, 3),
        rule="as it is",
    ),
    PointProof(
        format="slicer-fcsv",
        file=f"{AFIDS}afids.fcsv",
        row=0,
        read=Cells(4, (4, 3, 2), signs=(1, -1, -1), separator=","),
        point=(-4.899, -2.93275, 0.23099999999999998),
        convention=("mm", "xyz", "world", 0),
        inferred=(),
        volume=f"{AFIDS}res-02_T1w.nii.gz",
        voxel=AFIDS_VOXEL,
        rule=AFIDS_RULE,
    ),
    PointProof(
        format="elastix",
        file="points.txt",
        made="point\n1\n10 -20 3\n",
        row=0,
        read=Cells(3, (3, 2, 1)),
        point=(3, -20, 10),
        convention=("mm", "xyz", "world", 0),
        inferred=("unit",),
        volume=f"{AFIDS}res-02_T1w.nii.gz",
        voxel=LPS_VOXEL,
        rule=LPS_RULE,
    ),
    PointProof(
        format="cell-counter",
        file="cellxml/cellfinder_cells.xml",
        row=0,
        read=Xml("Marker_Data/Marker_Type/Marker", ("MarkerZ", "MarkerY", "MarkerX")),
        point=(1282, 2379, 181),
        convention=("voxel", "xyz", "voxel-center", 0),
        inferred=("zero", "index_base"),
        voxel=(1282, 2379, 181),
        rule="as it is",
    ),
    PointProof(
        format="deepfinder",
        file="objects.xml",
        made='<objlist>\n  <object tomo_idx="0" class_label="2" x="71" y="152.5" z="470"/>\n</objlist>\n',
        row=0,
        read=Xml("object", ("z", "y", "x")),
        point=(470, 152.5, 71),
        convention=("voxel", "xyz", "voxel-center", 0),
        inferred=("index_base", "zero"),
        voxel=(470, 152.5, 71),
        rule="as it is",
    ),
    PointProof(
        format="cmm",
        file="markers.cmm",
        made='<marker_set name="motors">\n<marker id="1" x="42.24" y="28.16" z="7.04" radius="5"/>\n</marker_set>\n',
        row=0,
        read=Xml("marker", ("z", "y", "x")),
        point=(7.04, 28.16, 42.24),
        convention=("angstrom", "xyz", "world", 0),
        inferred=("zero",),
        volume="matched/portal_fixture/run1.rec",
        voxel=(0.5, 2, 3),
        rule="Å / 14.08; the map's origin is 0",
    ),
    PointProof(
        format="dynamo",
        file="dynamo/t_double.tbl",
        row=0,
        read=Cells(1, (26, 25, 24), plus=(6, 5, 4)),
        point=(163.08 + 2.1043, 114.71 - 3.523, 141.28 + 2.5178),
        convention=("voxel", "xyz", "voxel-center", 1),
        inferred=("zero", "index_base"),
        voxel=(164.1843, 110.187, 142.7978),
        rule="- 1",
    ),
    PointProof(
        format="tomotwin-coords",
        file="picks.coords",
        made="10 20 30\n1.5 2.5 3.5\n",
        row=1,
        read=Cells(2, (3, 2, 1)),
        point=(3.5, 2.5, 1.5),
        convention=("voxel", "xyz", "voxel-center", 0),
        inferred=("index_base", "zero"),
        voxel=(3.5, 2.5, 1.5),
        rule="as it is",
    ),
    PointProof(
        format="table",
        file="matched/portal_fixture/tardis.csv",
        row=0,
        read=Cells(2, (4, 3, 2), separator=","),
        point=(12, 8, 4),
        convention=("angstrom", "xyz", "voxel-center", 0),
        inferred=("zero", "index_base"),
        volume="matched/portal_fixture/run1.rec",
        voxel=(12 / 14.08, 8 / 14.08, 4 / 14.08),
        rule="Å / 14.08",
        extra="parquet",
    ),
)


# ----- volumes -----

VOLUMES: tuple[VolumeProof, ...] = (
    VolumeProof(
        format="mrc",
        file="mrc/EMD-3001.map",
        read=readings.by_mrcfile,
        by="mrcfile, axes by MAPS, MAPR, MAPC",
        index=(36, 12, 21),
        value=-0.08018922805786133,
        shape=(73, 25, 43),
        spacing=(0.45875, 0.3925, 0.44825),
        unit="Å: cell / sampling",
        axes="MAPC, MAPR, MAPS, here 3, 1, 2",
        world="ORIGIN, else NSTART, in Å as ChimeraX shows it",
        inferred=(),
        access="mapped",
    ),
    VolumeProof(
        format="zarr",
        file="ome-zarr/portal_input_omezarr.zarr",
        read=readings.by_zarr_xyz,
        by="zarr, axes and scale by its metadata",
        index=(2, 1, 0),
        value=2.0,
        shape=(4, 4, 4),
        spacing=(14.08, 14.08, 14.08),
        unit="the axes' unit; Å where they have none",
        axes="names of the axes, here x, y, z",
        world="coordinate transformations",
        inferred=("unit",),
        access="region",
    ),
    VolumeProof(
        format="tiff",
        file="matched/cylindra_mt/13pf_MT.tif",
        read=readings.by_pillow,
        by="Pillow",
        index=(18, 103, 47),
        value=113,
        shape=(36, 206, 94),
        spacing=(10.52, 10.52, 10.52),
        unit="ImageJ's or OME's",
        axes="ImageJ's or OME's; else pages are z",
        world="",
        inferred=(),
        access="mapped",
        extra="tiff",
    ),
    VolumeProof(
        format="npy",
        file="v.npy",
        make=make_npy,
        read=readings.by_bytes(128, MADE_SHAPE, "B"),
        by="its bytes",
        index=(2, 3, 4),
        value=2 * 42 + 3 * 7 + 4,
        shape=MADE_SHAPE,
        spacing=None,
        unit="none: give --voxel-spacing",
        axes="assumed z, y, x",
        world="",
        inferred=("axis_order",),
        access="mapped",
    ),
    VolumeProof(
        format="hdf5",
        file="hdf5/sample_ovule.h5",
        read=readings.by_h5py("raw"),
        by="h5py",
        options={"array": "raw"},
        index=(16, 60, 70),
        value=76,
        shape=(32, 128, 128),
        spacing=(2350.0, 1500.0, 1500.0),
        unit="attributes of EMAN2, plant-seg and others",
        axes="axistags where there are; else z, y, x",
        world="",
        inferred=(),
        access="region",
        extra="hdf5",
    ),
    VolumeProof(
        format="nifti",
        file=f"{AFIDS}res-02_T1w.nii.gz",
        read=readings.by_simpleitk(1e7),
        by="SimpleITK",
        index=(40, 57, 50),
        value=6646,
        shape=(97, 115, 97),
        spacing=(2e7, 2e7, 2e7),
        unit="xyzt_units",
        axes="x fastest, by the standard",
        world="sform, else qform; RAS turned to LPS",
        inferred=(),
        access="whole",
        extra="medical",
    ),
    VolumeProof(
        format="nrrd",
        file="nrrd/FLAIR.nrrd",
        read=readings.by_simpleitk(1e7),
        by="SimpleITK",
        index=(70, 80, 62),
        value=170,
        shape=(140, 160, 124),
        spacing=(1e7, 1e7, 1e7),
        unit="space units; mm where there are none",
        axes="fastest first, by the standard",
        world="space, space directions and origin, to LPS",
        inferred=("unit",),
        access="whole",
        extra="medical",
    ),
    VolumeProof(
        format="metaimage",
        file="metaimage/mha.mha",
        read=readings.by_simpleitk(1e7),
        by="SimpleITK",
        index=(18, 30, 35),
        value=2195,
        shape=(37, 64, 64),
        spacing=(3.8e7, 3.4375e7, 3.4375e7),
        unit="mm, which no text states outright",
        axes="x fastest, by the standard",
        world="TransformMatrix and Offset",
        inferred=("unit",),
        access="whole",
    ),
    VolumeProof(
        format="em",
        file="v.em",
        make=make_em,
        read=readings.by_bytes(512, MADE_SHAPE, "<f"),
        by="its bytes, written by emfile",
        index=(2, 3, 4),
        value=2 * 42 + 3 * 7 + 4,
        shape=MADE_SHAPE,
        spacing=None,
        unit="Å: seventh parameter / 1000",
        axes="x fastest, by the standard",
        world="",
        inferred=(),
        access="mapped",
    ),
    VolumeProof(
        format="slices",
        file="v/slice_0.png …",
        make=make_slices,
        read=readings.by_pillow,
        by="Pillow",
        index=(2, 3, 4),
        value=2 * 42 + 3 * 7 + 4,
        shape=MADE_SHAPE,
        spacing=None,
        unit="none: give --voxel-spacing",
        axes="the number in the name is z",
        world="",
        inferred=("axis_order",),
        access="slices",
        extra="tiff",
    ),
)
