"""One writer for each way of storing a volume, by the format's own library, and which dtypes that way holds."""

from __future__ import annotations

import emfile
import h5py
import mrcfile
import nibabel
import nrrd
import numpy as np
import SimpleITK
import tifffile
import zarr
from PIL import Image


def write_mrc(folder, array, name="v.mrc", compression=None):
    with mrcfile.new(folder / name, data=array, compression=compression) as mrc:
        mrc.voxel_size = 10.0
        mrc.set_volume()
    return folder / name


def write_big_endian_mrc(folder, array):
    path = write_mrc(folder, array)
    with mrcfile.open(path) as mrc:
        header, data = mrc.header.copy(), mrc.data.copy()
    swapped = header.astype(header.dtype.newbyteorder(">"))
    swapped["machst"] = (0x11, 0x11, 0, 0)
    path.write_bytes(swapped.tobytes() + data.astype(data.dtype.newbyteorder(">")).tobytes())
    return path


def write_permuted_mrc(folder, array):
    """Sections along y, rows along x, columns along z."""
    path = write_mrc(folder, np.ascontiguousarray(array.transpose(1, 2, 0)))
    with mrcfile.open(path, "r+") as mrc:
        mrc.header.mapc, mrc.header.mapr, mrc.header.maps = 3, 1, 2
    return path


def write_npy(folder, array):
    np.save(folder / "v.npy", array)
    return folder / "v.npy"


def write_zarr(folder, array, **options):
    # create_array(data=…) with shards loses data before zarr-python 3.1.3 (its issue 3479), so the data come after.
    stored = {"shape": array.shape, "dtype": array.dtype, "chunks": (2, 3, 2), **options}
    zarr.create_array(folder / "v.zarr", **stored)[...] = array
    return folder / "v.zarr"


def write_tiff(folder, array, **options):
    tifffile.imwrite(folder / "v.tif", array, photometric="minisblack", **options)
    return folder / "v.tif"


def write_png_slices(folder, array):
    (folder / "v").mkdir()
    for z, plane in enumerate(array):
        Image.fromarray(plane).save(folder / "v" / f"slice_{z}.png")
    return folder / "v"


def write_tiff_slices(folder, array):
    (folder / "v").mkdir()
    for z, plane in enumerate(array):
        tifffile.imwrite(folder / "v" / f"slice_{z}.tif", plane, photometric="minisblack")
    return folder / "v"


def write_hdf5(folder, array, **options):
    with h5py.File(folder / "v.h5", "w") as file:
        file.create_dataset("some/volume", data=array, **options)
    return folder / "v.h5"


def write_hdf5_in_chunks(folder, array):
    return write_hdf5(folder, array, chunks=tuple(min(2, n) for n in array.shape), compression="gzip", shuffle=True)


def write_nifti(folder, array, name="v.nii", kind=nibabel.Nifti1Image, byteorder="<"):
    header = kind.header_class(endianness=byteorder)
    header.set_data_dtype(array.dtype)
    kind(array.T, np.diag([-2.0, -2.0, 2.0, 1.0]), header, dtype=array.dtype).to_filename(folder / name)
    return folder / name


def write_nifti_in_bzip2(folder, array):
    return write_nifti(folder, array, "v.nii.bz2")


def write_nrrd(folder, array, name="v.nrrd", **header):
    nrrd.write(str(folder / name), array, {"encoding": "raw", **header}, index_order="C")
    return folder / name


def write_big_endian_nrrd(folder, array):
    """pynrrd writes in the machine's order only."""
    path = write_nrrd(folder, array)
    head, _, _ = path.read_bytes().partition(b"\n\n")
    path.write_bytes(head.replace(b"endian: little", b"endian: big") + b"\n\n" + big(array).tobytes())
    return path


def write_metaimage(folder, array, name="v.mha", *, compress=False):
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), str(folder / name), compress)
    return folder / name


def write_big_endian_metaimage(folder, array):
    """ITK writes in the machine's order only."""
    path = write_metaimage(folder, array)
    head, mark, _ = path.read_bytes().partition(b"ElementDataFile = LOCAL\n")
    path.write_bytes(head.replace(b"OrderMSB = False", b"OrderMSB = True") + mark + big(array).tobytes())
    return path


def write_em(folder, array):
    """emfile 0.3 puts a parameter that it is given in front of the comment, so 10 Å go in by hand."""
    emfile.write(folder / "v.em", array)
    with (folder / "v.em").open("r+b") as file:
        file.seek(120)
        file.write((10_000).to_bytes(4, "little"))
    return folder / "v.em"


def write_big_endian_em(folder, array):
    """As SGI's machines wrote it; emfile knows the PC's alone."""
    path = write_em(folder, array)
    raw = path.read_bytes()
    words = np.frombuffer(raw[4:16] + raw[96:256], "<i4").astype(">i4").tobytes()
    path.write_bytes(b"\3" + raw[1:4] + words[:12] + raw[16:96] + words[12:] + raw[256:512] + big(array).tobytes())
    return path


def big(array):
    return array.astype(array.dtype.newbyteorder(">"))


MRC_TYPES = ("int8", "int16", "float32", "uint16", "float16")
ALL_TYPES = (*MRC_TYPES, "uint8", "uint32", "int32", "float64", "int64")
TIFF_TYPES = tuple(name for name in ALL_TYPES if name != "float16")

NIFTI_TYPES = ("int16", "uint8", "int8", "uint16", "int32", "uint32", "int64", "float32", "float64")
NRRD_TYPES = ("int16", "uint8", "int8", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64")
EM_TYPES = ("float32", "int8", "int16", "int32", "float64")

CASES = {
    "mrc": (write_mrc, MRC_TYPES),
    "mrc-big-endian": (write_big_endian_mrc, MRC_TYPES),
    "mrc-permuted": (write_permuted_mrc, MRC_TYPES),
    "mrc-gzip": (lambda folder, a: write_mrc(folder, a, "v.mrc.gz", "gzip"), MRC_TYPES),
    "mrc-bzip2": (lambda folder, a: write_mrc(folder, a, "v.mrc.bz2", "bzip2"), MRC_TYPES),
    "npy": (write_npy, (*ALL_TYPES, "bool")),
    "npy-fortran": (lambda folder, a: write_npy(folder, np.asfortranarray(a)), ALL_TYPES),
    "npy-big-endian": (lambda folder, a: write_npy(folder, big(a)), ALL_TYPES),
    "zarr-3": (write_zarr, (*ALL_TYPES, "bool")),
    "zarr-2": (lambda folder, a: write_zarr(folder, a, zarr_format=2), ALL_TYPES),
    "zarr-2-big-endian": (lambda folder, a: write_zarr(folder, big(a), zarr_format=2), ALL_TYPES),
    "zarr-sharded": (lambda folder, a: write_zarr(folder, a, shards=(4, 6, 4)), ALL_TYPES),
    "tiff": (write_tiff, TIFF_TYPES),
    "tiff-big-endian": (lambda folder, a: write_tiff(folder, a, byteorder=">"), TIFF_TYPES),
    "tiff-pages": (lambda folder, a: write_tiff(folder, a, metadata=None, compression="zlib"), TIFF_TYPES),
    "tiff-tiles": (lambda folder, a: write_tiff(folder, a, bigtiff=True, tile=(16, 16)), TIFF_TYPES),
    "slices-png": (write_png_slices, ("uint8", "uint16")),
    "slices-tiff": (write_tiff_slices, TIFF_TYPES),
    "hdf5": (write_hdf5, (*ALL_TYPES, "uint64", "bool")),
    "hdf5-big-endian": (lambda folder, a: write_hdf5(folder, big(a)), ALL_TYPES),
    "hdf5-chunks": (write_hdf5_in_chunks, ALL_TYPES),
    "nifti": (write_nifti, NIFTI_TYPES),
    "nifti-big-endian": (lambda folder, a: write_nifti(folder, a, byteorder=">"), NIFTI_TYPES),
    "nifti-2": (lambda folder, a: write_nifti(folder, a, kind=nibabel.Nifti2Image), NIFTI_TYPES),
    "nifti-gzip": (lambda folder, a: write_nifti(folder, a, "v.nii.gz"), NIFTI_TYPES),
    "nifti-bzip2": (write_nifti_in_bzip2, NIFTI_TYPES),
    "nrrd": (write_nrrd, NRRD_TYPES),
    "nrrd-gzip": (lambda folder, a: write_nrrd(folder, a, encoding="gzip"), NRRD_TYPES),
    "nrrd-bzip2": (lambda folder, a: write_nrrd(folder, a, encoding="bzip2"), NRRD_TYPES),
    "nrrd-big-endian": (write_big_endian_nrrd, NRRD_TYPES[:1] + NRRD_TYPES[3:]),
    "nrrd-detached": (lambda folder, a: write_nrrd(folder, a, "v.nhdr"), NRRD_TYPES),
    "metaimage": (write_metaimage, NRRD_TYPES),
    "metaimage-big-endian": (write_big_endian_metaimage, NRRD_TYPES),
    "metaimage-zlib": (lambda folder, a: write_metaimage(folder, a, compress=True), NRRD_TYPES),
    "metaimage-detached": (lambda folder, a: write_metaimage(folder, a, "v.mhd"), NRRD_TYPES),
    "em": (write_em, EM_TYPES),
    "em-big-endian": (write_big_endian_em, EM_TYPES),
}


def sample(name, dtype=None, shape=(5, 7, 6), seed=3):
    kind = np.dtype(dtype or CASES[name][1][0])
    rng = np.random.default_rng(seed)
    if kind.kind == "f":
        return rng.normal(size=shape).astype(kind)
    if kind.kind == "b":
        return rng.integers(0, 2, shape).astype(kind)
    return rng.integers(np.iinfo(kind).min, np.iinfo(kind).max, shape, dtype=kind, endpoint=True)


def files_of(path):
    """The files that a volume consists of, of a Zarr or a folder of slices the first two."""
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())[:2]
    return sorted(file for file in path.parent.iterdir() if file.is_file())
