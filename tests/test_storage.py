"""Files that are whole or absent."""

import errno
import os

import numpy as np
import pytest

from tfp_gaps import storage


def test_arrays_survive_a_round_trip(tmp_path):
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.array([True, False])}
    storage.write_arrays(tmp_path / "x.npz", arrays, description={"step": 3})
    read, description = storage.read_arrays(tmp_path / "x.npz")
    assert description == {"step": 3}
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)


@pytest.mark.parametrize("damage", ["truncate", "flip", "swap"])
def test_damage_is_noticed(tmp_path, damage):
    path = tmp_path / "x.npz"
    storage.write_arrays(path, {"a": np.arange(100.0)}, description={})
    content = bytearray(path.read_bytes())
    if damage == "truncate":
        content = content[: len(content) // 2]
    elif damage == "flip":
        content[len(content) // 2] ^= 1
    else:
        np.savez(path, a=np.ones(100), __description__="{}", __digest__="0" * 64)
        content = path.read_bytes()
    path.write_bytes(bytes(content))
    with pytest.raises(storage.CorruptFileError, match="delete it"):
        storage.read_arrays(path)


def test_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x"
    storage.write_atomically(path, b"old")

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        storage.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="Choose a folder that can be written"):
        storage.write_atomically(tmp_path / "file" / "x", b"new")
