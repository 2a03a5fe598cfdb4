"""Raw files: where they are looked for, and what is refused."""

import errno
import os

import numpy as np
import pytest

from tfp_gaps import storage
from tfp_gaps.book.data import DataError, store

CONTENT = b"a few bytes of data"
RAW = store.RawFile(
    "metr-la",
    ("week.csv", "other-name.csv"),
    "sha256:" + storage.sha256(CONTENT),
    "https://data.invalid/week.csv",
)


@pytest.fixture
def cache(monkeypatch, tmp_path):
    folder = tmp_path / "cache"
    monkeypatch.delenv("TFP_GAPS_DATA", raising=False)
    monkeypatch.setattr(store, "cache_folder", lambda: folder)
    return folder


def serve(monkeypatch, content=None, error=None):
    """Replace the download; returns the list of URLs that were asked for."""
    asked = []

    def download(self, url, target, pooch):
        asked.append(url)
        with open(target, "wb") as file:
            file.write(content or b"half of")
        if error is not None:
            raise error

    monkeypatch.setattr(store.pooch.HTTPDownloader, "__call__", download)
    return asked


def test_downloads_once_into_the_cache(cache, monkeypatch):
    asked = serve(monkeypatch, CONTENT)
    for _ in range(2):
        path, content = store.read(RAW)
        assert (path, content) == (cache / "week.csv", CONTENT)
    assert asked == [RAW.url]


def test_given_folder_comes_first_under_either_name(cache, monkeypatch, tmp_path):
    asked = serve(monkeypatch, CONTENT)
    store.fetch(RAW)
    (tmp_path / "other-name.csv").write_bytes(CONTENT)
    monkeypatch.setenv("TFP_GAPS_DATA", str(tmp_path))
    assert store.fetch(RAW) == tmp_path / "other-name.csv"
    assert len(asked) == 1


def test_a_corrupt_file_in_the_cache_is_not_taken_for_fetched(cache, monkeypatch):
    asked = serve(monkeypatch, CONTENT)
    path = store.fetch(RAW)
    path.write_bytes(CONTENT[:-1])
    message = rf"{path} should have SHA-256 .*Delete it and run `tfp-gaps data fetch metr-la`"
    with pytest.raises(DataError, match=message):
        store.fetch(RAW)
    path.unlink()
    assert store.fetch(RAW).read_bytes() == CONTENT
    assert len(asked) == 2


@pytest.mark.parametrize("kind", ["sha256", "git"])
def test_wrong_checksum_in_the_folder_names_the_data_set(cache, monkeypatch, tmp_path, kind):
    raw = store.RawFile(RAW.data_set, RAW.names, store.digest_like(f"{kind}:", CONTENT), RAW.url)
    monkeypatch.setenv("TFP_GAPS_DATA", str(tmp_path))
    (tmp_path / "week.csv").write_bytes(CONTENT)
    assert store.read(raw)[1] == CONTENT
    (tmp_path / "week.csv").write_bytes(CONTENT[:-1])
    with pytest.raises(DataError, match=r"should have .*SHA.*tfp-gaps data fetch metr-la"):
        store.read(raw)


def test_wrong_download_is_not_kept(cache, monkeypatch):
    serve(monkeypatch, CONTENT + b"!")
    with pytest.raises(DataError, match=r"data.invalid/week.csv should have SHA-256"):
        store.fetch(RAW)
    assert not cache.exists()


def test_no_network_and_no_folder_says_what_to_do(cache, monkeypatch):
    serve(monkeypatch, error=ConnectionError("Name or service not known"))
    message = (
        r"metr-la needs week.csv.*could not be fetched from https://data.invalid/week.csv.*not "
        r"known.*data fetch metr-la.*set TFP_GAPS_DATA"
    )
    with pytest.raises(DataError, match=message):
        store.fetch(RAW)
    assert not cache.exists()


def test_unreachable_address_fails_at_once(cache):
    # The real downloader, against a port of this machine at which nobody listens.
    raw = store.RawFile("metr-la", RAW.names, RAW.digest, "http://127.0.0.1:9/week.csv")
    with pytest.raises(DataError, match="could not be fetched"):
        store.fetch(raw)
    assert not cache.exists()


def test_full_disk_leaves_nothing(cache, monkeypatch):
    serve(monkeypatch, CONTENT)

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(storage.os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        store.fetch(RAW)
    assert list(cache.iterdir()) == []


def test_full_disk_during_the_download_is_not_called_a_network_error(cache, monkeypatch):
    serve(monkeypatch, error=OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    with pytest.raises(OSError, match="No space left on device"):
        store.fetch(RAW)
    assert not cache.exists()


def test_unreadable_file(cache, tmp_path):
    with pytest.raises(DataError, match="expected to read .* of the data set metr-la"):
        store.read_verified(tmp_path, RAW.digest, data_set="metr-la")


def test_own_files_are_checked(tmp_path):
    arrays = {"b": np.arange(3), "a": np.zeros([2, 2])}
    path, digest = tmp_path / "own.npz", store.digest_of_arrays(arrays)
    path.write_bytes(store.compress(arrays))
    np.testing.assert_array_equal(store.read_own(path, digest)["b"], [0, 1, 2])
    path.write_bytes(store.compress(arrays | {"b": np.arange(1, 4)}))
    with pytest.raises(DataError, match="the arrays of .* should have SHA-256"):
        store.read_own(path, digest)
    path.write_bytes(store.compress(arrays)[:-20])
    with pytest.raises(DataError, match="expected arrays in"):
        store.read_own(path, digest)


def test_digest_sees_names_types_and_shapes():
    one = {"a": np.zeros([2, 3])}
    others = ({"b": np.zeros([2, 3])}, {"a": np.zeros([3, 2])}, {"a": np.zeros([2, 3], np.int64)})
    assert len({store.digest_of_arrays(arrays) for arrays in (one, *others)}) == 4
