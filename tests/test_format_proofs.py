"""Every format against one file whose content was got without keypatch; docs/formats.md is made of the same proofs."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
from tests import formats_table
from tests.format_proofs import POINTS, VOLUMES, PointProof, VolumeProof

from keypatch.converters.placing import place
from keypatch.formats import annotations, volumes
from keypatch.formats.annotations import AnnotationOptions, read_annotations
from keypatch.formats.volumes import VolumeInfo, VolumeOptions, open_volume

ROOT = Path(__file__).resolve().parent.parent


def point_file(proof: PointProof, real_data: Path, folder: Path) -> Path:
    if proof.made is None:
        return real_data / proof.file
    path = folder / proof.file
    path.write_bytes(proof.made if isinstance(proof.made, bytes) else proof.made.encode())
    return path


def header(proof: PointProof, real_data: Path) -> tuple[VolumeInfo, tuple[float, float, float]]:
    if proof.volume is None:
        info = VolumeInfo(Path("v"), "npy", proof.shape, np.dtype("u1"), proof.spacing, "mapped")
        return info, proof.spacing
    with open_volume(real_data / proof.volume) as volume:
        assert volume.info.voxel_spacing is not None
        return volume.info, volume.info.voxel_spacing


@pytest.mark.parametrize("proof", POINTS, ids=lambda proof: proof.format)
def test_a_point_of_every_annotation_format(proof, real_data, tmp_path):
    path = point_file(proof, real_data, tmp_path)
    table = read_annotations(path, AnnotationOptions(**proof.options))
    convention = table.convention
    assert table.format == proof.format
    found = (convention.unit, convention.axis_order, convention.zero, convention.index_base)
    assert (found, set(convention.inferred)) == (proof.convention, set(proof.inferred))
    np.testing.assert_allclose(proof.read(path), proof.point, rtol=1e-12, err_msg="the proof itself")
    row = table.points[table.points["source_row"] == proof.row]
    assert len(row) == 1
    coords = row[["z", "y", "x"]].to_numpy(np.float64)
    np.testing.assert_allclose(coords[0], proof.point, rtol=1e-7)
    info, spacing = header(proof, real_data)
    np.testing.assert_allclose(place(coords, convention, spacing, info)[0], proof.voxel, rtol=1e-6)


@pytest.mark.parametrize("proof", VOLUMES, ids=lambda proof: proof.format)
def test_a_voxel_of_every_volume_format(proof: VolumeProof, real_data, tmp_path):
    path = real_data / proof.file if proof.make is None else proof.make(tmp_path)
    value, spacing = proof.read(path, proof.index)
    assert value == pytest.approx(proof.value, rel=1e-6), "the proof itself"
    with open_volume(path, VolumeOptions(**proof.options)) as volume:
        info = volume.info
        box = volume.read(proof.index, tuple(i + 1 for i in proof.index))
    assert (info.format, info.shape, info.access) == (proof.format, proof.shape, proof.access)
    assert box.item() == pytest.approx(proof.value, rel=1e-6)
    assert set(info.conventions.get("inferred") or ()) == set(proof.inferred)
    assert (info.world is not None) == bool(proof.world)
    assert info.voxel_spacing == (None if proof.spacing is None else pytest.approx(proof.spacing, rel=1e-5))
    if spacing is not None:
        assert spacing == pytest.approx(proof.spacing, rel=1e-5), "the proof itself"


def test_every_format_has_a_proof_in_the_order_of_its_registry():
    assert [proof.format for proof in POINTS] == [row.NAME for row in annotations.FORMATS]
    assert [proof.format for proof in VOLUMES] == [row.NAME for row in volumes.FORMATS]


def test_every_extra_can_be_installed():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {proof.extra for proof in (*POINTS, *VOLUMES) if proof.extra} <= set(extras)


def test_no_voxel_is_one_that_a_wrong_axis_order_would_find_too():
    """Only proofs with three different numbers tell the axes apart."""
    for proof in POINTS:
        assert len({round(abs(value), 6) for value in proof.point}) == 3, proof.format
    for proof in VOLUMES:
        assert len(set(proof.index)) == 3, proof.format


def test_the_page_is_up_to_date():
    """Run: python -m tests.formats_table."""
    assert formats_table.PAGE.read_text(encoding="utf-8") == formats_table.page()
