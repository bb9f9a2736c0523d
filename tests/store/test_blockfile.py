"""Files written block by block past the page cache, or through it where a file system refuses."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.trials import trials

from keypatch.formats.store import blockfile
from keypatch.formats.store.blockfile import BlockFile

BLOCK = 3 * 4096

direct_only = pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="this system knows no direct writes")


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(blockfile, "BLOCK_BYTES", BLOCK)


def written(path, parts):
    file = BlockFile(path)
    for part in parts:
        file.write(part)
    size = file.size
    return file.finish(), size


@pytest.fixture(params=["direct", "usual"])
def either_way(request, monkeypatch, small_blocks):
    if request.param == "usual":
        monkeypatch.delattr(os, "O_DIRECT", raising=False)


@given(lengths=st.lists(st.integers(0, 2 * BLOCK + 5), max_size=6))
@settings(max_examples=trials(50), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.usefixtures("either_way")
def test_what_is_written_is_there(tmp_path, lengths):
    rng = np.random.default_rng(len(lengths))
    parts = [rng.integers(0, 256, n, np.uint8, endpoint=False).tobytes() for n in lengths]
    sha256, size = written(tmp_path / "a", parts)
    whole = b"".join(parts)
    assert (tmp_path / "a").read_bytes() == whole
    assert (sha256, size) == (hashlib.sha256(whole).digest(), len(whole))


@pytest.mark.usefixtures("small_blocks")
def test_memory_may_be_used_again_after_write(tmp_path):
    memory = np.zeros(5000, np.uint8)
    file = BlockFile(tmp_path / "a")
    for value in range(1, 8):
        memory[:] = value
        file.write(memory)
    file.finish()
    assert (tmp_path / "a").read_bytes() == b"".join(bytes([value]) * 5000 for value in range(1, 8))


@direct_only
@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("refuses", ["open", "write"])
def test_a_file_system_that_refuses_direct_writes(tmp_path, monkeypatch, refuses):
    """As tmpfs did before Linux 6.6 when opened, and some network file systems do when written to."""
    real_open, real_write = os.open, os.write
    direct = set()

    def opens(path, flags, *rest):
        if flags & os.O_DIRECT and refuses == "open":
            raise OSError(errno.EINVAL, "Invalid argument")
        descriptor = real_open(path, flags, *rest)
        if flags & os.O_DIRECT:
            direct.add(descriptor)
        return descriptor

    def writes(descriptor, data):
        import fcntl

        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real_write(descriptor, data)

    monkeypatch.setattr(os, "open", opens)
    monkeypatch.setattr(os, "write", writes)
    whole = bytes(range(256)) * 200
    sha256, _ = written(tmp_path / "a", [whole])
    assert (tmp_path / "a").read_bytes() == whole
    assert sha256 == hashlib.sha256(whole).digest()
    assert bool(direct) == (refuses == "write")


@pytest.mark.usefixtures("small_blocks")
def test_a_system_that_takes_less_than_a_block(tmp_path, monkeypatch):
    """write(2) may take a part; what is left is then no whole sector any more."""
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[: max(1, len(data) // 3)]))
    whole = np.random.default_rng(0).integers(0, 256, 4 * BLOCK + 17, np.uint8, endpoint=False).tobytes()
    sha256, _ = written(tmp_path / "a", [whole])
    assert (tmp_path / "a").read_bytes() == whole
    assert sha256 == hashlib.sha256(whole).digest()


def fill(file, n_blocks):
    for _ in range(int(2 * n_blocks)):
        file.write(bytes(BLOCK // 2))
    file.finish()


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("n_blocks", [0.5, 1, 2, 20])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_the_reason_of_a_write_that_fails_is_told(tmp_path, monkeypatch, number, n_blocks):
    def fails(descriptor, data):
        raise OSError(number, os.strerror(number))

    file = BlockFile(tmp_path / "a")
    monkeypatch.setattr(os, "write", fails)
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        fill(file, n_blocks)
    assert caught.value.errno == number
    file.close()
    file.close()


@direct_only
@pytest.mark.skipif(sys.platform != "linux", reason="the page cache is asked by mincore")
def test_whole_blocks_do_not_go_through_the_page_cache(tmp_path):
    import fcntl

    file = BlockFile(tmp_path / "a")
    if not fcntl.fcntl(file._descriptor, fcntl.F_GETFL) & os.O_DIRECT:
        file.close()
        pytest.skip("this file system refuses direct writes")
    file.write(bytes(blockfile.BLOCK_BYTES))
    assert fcntl.fcntl(file._descriptor, fcntl.F_GETFL) & os.O_DIRECT
    file.write(b"rest")
    file.finish()
    assert (tmp_path / "a").stat().st_size == blockfile.BLOCK_BYTES + 4


def test_a_file_that_is_there_is_replaced(tmp_path):
    (tmp_path / "a").write_bytes(bytes(10**6))
    written(tmp_path / "a", [b"short"])
    assert (tmp_path / "a").read_bytes() == b"short"


@pytest.mark.usefixtures("small_blocks")
def test_a_slow_disk_gets_every_block_in_order(tmp_path, monkeypatch):
    """The blocks that are filled while the disk is busy are others than those it still has to take."""
    real = os.write

    def slowly(descriptor, data):
        copied = bytes(data)
        time.sleep(0.005)
        assert bytes(data) == copied
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", slowly)
    whole = np.random.default_rng(1).integers(0, 256, 12 * BLOCK + 99, np.uint8, endpoint=False).tobytes()
    sha256, _ = written(tmp_path / "a", [whole[at : at + 7000] for at in range(0, len(whole), 7000)])
    assert (tmp_path / "a").read_bytes() == whole
    assert sha256 == hashlib.sha256(whole).digest()
