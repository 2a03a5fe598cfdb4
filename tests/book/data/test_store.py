"""Raw files: where they are looked for, and what is refused."""

import dataclasses
import errno
import os
import signal
import subprocess
import sys
import threading

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


# Data sets in pieces ------------------------------------------------------------------------------

PIECES = {f"part/{name}": f"content of {name}".encode() for name in "abcd"}
ARRAYS = {"x": np.arange(6.0)}
REDUCED = store.Reduced("toy", "toy/x.npz", {"x": storage.sha256(ARRAYS["x"].tobytes())})


@pytest.fixture
def table(server, tmp_path):
    """A table of four pieces that the server has."""
    server.files.update(PIECES)
    lines = [f"{n}\t{len(c)}\t{storage.sha256(c)}\tmore" for n, c in PIECES.items()]
    (tmp_path / "toy.tsv").write_text("\n".join(["path\tbytes\tsha256\tother", *lines]) + "\n")
    return tmp_path / "toy.tsv"


def pieces_of(table, url):
    return list(store.read_table(table, data_set="toy", url=url, folder="toy").values())


def test_pieces_are_fetched_once_and_used_from_a_given_folder(
    cache, server, table, tmp_path, monkeypatch
):
    pieces = pieces_of(table, server.url)
    store.fetch_pieces(pieces)
    store.fetch_pieces(pieces)
    assert server.asked == list(PIECES)
    assert [store.read(raw)[1] for raw in pieces] == list(PIECES.values())
    (tmp_path / "toy" / "part").mkdir(parents=True)
    (tmp_path / "toy" / "part" / "a").write_bytes(PIECES["part/a"])
    monkeypatch.setenv("TFP_GAPS_DATA", str(tmp_path))
    assert store.fetch(pieces[0]) == tmp_path / "toy" / "part" / "a"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            PIECES["part/c"][:-1],
            "part/c should have SHA-256 .* run `tfp-gaps data fetch toy` again",
        ),
        (None, "toy needs toy/part/c, .* could not be fetched .*404.*data fetch toy"),
    ],
)
def test_a_bad_piece_stops_the_fetch_which_goes_on_from_there(
    cache, server, table, answer, message
):
    pieces = pieces_of(table, server.url)
    server.files["part/c"] = answer
    with pytest.raises(DataError, match=message):
        store.fetch_reduced(REDUCED, pieces, lambda: ARRAYS)
    assert sorted(p.name for p in cache.rglob("*") if p.is_file()) == ["a", "b"]
    server.files["part/c"] = PIECES["part/c"]
    del server.asked[:]
    path = store.fetch_reduced(REDUCED, pieces, lambda: ARRAYS)
    assert server.asked == ["part/c", "part/d"]
    np.testing.assert_array_equal(store.read_reduced(REDUCED, path)["x"], ARRAYS["x"])


def test_a_killed_fetch_goes_on_where_it_stopped(cache, server, table):
    reached, release = threading.Event(), threading.Event()

    def stall():
        reached.set()
        release.wait(60)
        return PIECES["part/c"]

    server.files["part/c"] = stall
    code = (
        "import sys; from pathlib import Path; from tfp_gaps.book.data import store;"
        "cache, table, url = sys.argv[1:]; store.cache_folder = lambda: Path(cache);"
        "store.fetch_pieces(list(store.read_table("
        "table, data_set='toy', url=url, folder='toy').values()))"
    )
    command = [sys.executable, "-c", code, str(cache), str(table), server.url]
    with subprocess.Popen(command) as process:
        assert reached.wait(60)
        process.send_signal(signal.SIGKILL)
    release.set()
    assert process.returncode == -signal.SIGKILL
    server.files["part/c"] = PIECES["part/c"]
    del server.asked[:]
    store.fetch_pieces(pieces_of(table, server.url))
    assert server.asked == ["part/c", "part/d"]


def test_pieces_that_were_altered_in_the_cache_are_not_read(cache, server, table):
    pieces = pieces_of(table, server.url)
    store.fetch_pieces(pieces)
    (cache / "toy" / "part" / "b").write_bytes(b"something else")
    with pytest.raises(DataError, match="part/b should have SHA-256.*tfp-gaps data fetch toy"):
        store.read(pieces[1])


def test_progress_is_for_terminals(cache, server, table, monkeypatch, capsys):
    pieces = pieces_of(table, server.url)
    store.fetch_pieces(pieces)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    store.fetch_pieces(pieces)
    assert capsys.readouterr().err.endswith("\rtoy: file 4 of 4\n")


def test_reduced_arrays_are_made_once_and_checked(cache):
    made = []

    def make():
        made.append(1)
        return ARRAYS

    path = store.fetch_reduced(REDUCED, [], make)
    assert store.fetch_reduced(REDUCED, [], make) == path and len(made) == 1
    np.testing.assert_array_equal(store.read_reduced(REDUCED, path)["x"], ARRAYS["x"])
    content = bytearray(path.read_bytes())
    content[content.index(np.float64(5.0).tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"x.npz should be .* Delete it and run `tfp-gaps data"):
        store.read_reduced(REDUCED, path)
    path.write_bytes(content[:100])
    with pytest.raises(DataError, match="could not be read"):
        store.read_reduced(REDUCED, path)


def test_given_reduced_arrays_must_be_the_known_ones(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("TFP_GAPS_DATA", str(tmp_path))
    path = tmp_path / REDUCED.name
    path.parent.mkdir()
    np.savez_compressed(path, **ARRAYS)
    assert store.fetch_reduced(REDUCED, [], None) == path
    np.testing.assert_array_equal(store.read_reduced(REDUCED, path)["x"], ARRAYS["x"])
    np.savez_compressed(path, x=ARRAYS["x"] + 1)
    with pytest.raises(DataError, match="the array x of .* should have SHA-256"):
        store.read_reduced(REDUCED, path)
    np.savez_compressed(path, y=ARRAYS["x"])
    with pytest.raises(DataError, match="should be an npz file with the arrays of toy"):
        store.read_reduced(REDUCED, path)


def test_arrays_that_another_machine_rounded_differently_are_said_to_be(cache):
    other = dataclasses.replace(REDUCED, digests={"x": "0" * 64})
    path = store.fetch_reduced(other, [], lambda: ARRAYS)
    with pytest.warns(UserWarning, match="the data set toy should be the same .* rounded"):
        store.read_reduced(other, path)
