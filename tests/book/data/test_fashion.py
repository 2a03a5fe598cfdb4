"""The clothes: the same shapes as the digits, and the five ways in which the files are found."""

import dataclasses
import gzip
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tfp_gaps import storage
from tfp_gaps.book import command_line, data, results, sweep
from tfp_gaps.book.data import images, packages, store

IMAGES = images.SETS["fashion"]
TRAIN, TEST = IMAGES.raw_files
PACKAGE, INSTALLED = IMAGES.debian


@pytest.fixture
def raw(stand_in, monkeypatch, tmp_path):
    """Small stand-ins for the raw files, registered; nothing is installed, cached or given."""
    debian = (PACKAGE, tmp_path / "nowhere" / "fashion-mnist")
    small = stand_in("fashion", 1, debian=debian)
    monkeypatch.setattr(store, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(packages.shutil, "which", lambda name: None)
    monkeypatch.delenv("TFP_GAPS_DATA", raising=False)
    serve(monkeypatch, {}, [])
    return small


def serve(monkeypatch, pages, asked):
    """Replace the download; `pages` maps URLs to bytes, and `asked` collects the URLs."""

    def download(self, url, target, pooch):
        asked.append(url)
        if url not in pages:
            raise ConnectionError("Name or service not known")
        Path(target).write_bytes(pages[url])

    monkeypatch.setattr(store.pooch.HTTPDownloader, "__call__", download)


def write(folder, contents, *, flat=False, zipped=False):
    for name, content in contents.items():
        path = folder / (Path(name).name if flat else name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if zipped:
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content))
        else:
            path.write_bytes(content)


def load(**options):
    return data.load("fashion", **({"num_train": 60, "num_test": 20} | options))


def assert_right(raw):
    splits = load(num_validation=40)
    expected = raw[0][TRAIN] >= 128
    np.testing.assert_array_equal(images.flatten(splits.train), expected[:60].reshape(60, 784))
    np.testing.assert_array_equal(splits.validation.observations[3, 7], expected[67, 3])
    assert splits.train.observations.dtype == np.uint8
    assert splits.test.observations.shape == (28, 20, 28)


@pytest.mark.parametrize("zipped", [False, True])
def test_given_folder(raw, monkeypatch, tmp_path, zipped):
    write(tmp_path / "given", raw[1], zipped=zipped)
    monkeypatch.setenv("TFP_GAPS_DATA", str(tmp_path / "given"))
    assert_right(raw)


def test_given_npz(raw, monkeypatch, tmp_path):
    np.savez(tmp_path / "fashion_mnist.npz", train=raw[0][TRAIN], test=raw[0][TEST])
    monkeypatch.setenv("TFP_GAPS_DATA", str(tmp_path))
    assert_right(raw)
    np.savez(tmp_path / "fashion_mnist.npz", train=255 - raw[0][TRAIN], test=raw[0][TEST])
    with pytest.raises(data.DataError, match="the array train of"):
        load()


def test_digits_in_the_same_folder_are_never_taken_for_clothes(raw, monkeypatch, tmp_path):
    write(tmp_path / "given", raw[1], flat=True)
    monkeypatch.setenv("TFP_GAPS_DATA", str(tmp_path / "given"))
    with pytest.raises(data.DataError, match="the data set fashion needs"):
        load()


def test_installed_package(raw, monkeypatch, tmp_path):
    write(tmp_path / "share", raw[1], flat=True, zipped=True)
    kind = dataclasses.replace(images.SETS["fashion"], debian=(PACKAGE, tmp_path / "share"))
    monkeypatch.setitem(images.SETS, "fashion", kind)
    assert_right(raw)
    assert not store.cache_folder().exists()


def with_apt(monkeypatch, contents, *, status=0):
    """Stand-ins for apt-get and dpkg-deb; returns the list of commands that were called."""
    called = []

    def run(command, *, cwd, **options):
        called.append(" ".join(command))
        if command[0] == "apt-get" and status == 0:
            Path(cwd, "dataset.deb").write_bytes(b"!<arch>")
        if command[0] == "dpkg-deb":
            below = Path(cwd, command[3], str(images.SETS["fashion"].debian[1]).lstrip("/"))
            write(below, contents, flat=True, zipped=True)
        return subprocess.CompletedProcess(command, status, "", "E: Unable to locate package")

    monkeypatch.setattr(packages.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(packages.subprocess, "run", run)
    return called


def test_debian_package_is_unpacked_once_into_the_cache(raw, monkeypatch):
    called = with_apt(monkeypatch, raw[1])
    for _ in range(2):
        assert_right(raw)
    assert called == [
        "apt-get download dataset-fashion-mnist",
        "dpkg-deb -x dataset.deb unpacked",
    ]
    assert data.fetch("fashion") == [store.cache_folder() / name for name in (TRAIN, TEST)]
    assert data.fetch("fashion")[0].read_bytes() == raw[1][TRAIN]


def pages_of(contents):
    return {
        f"{IMAGES.mirror}/{Path(name).name}.gz": gzip.compress(content)
        for name, content in contents.items()
    }


@pytest.mark.parametrize("apt", ["absent", "fails", "brings other files", "brings too few"])
def test_download_is_the_last_resort(raw, monkeypatch, apt):
    other = {name: content[::-1] for name, content in raw[1].items()}
    if apt != "absent":
        brought = {"brings too few": {TEST: raw[1][TEST]}}.get(apt, other)
        with_apt(monkeypatch, brought, status=100 if apt == "fails" else 0)
    pages, asked = pages_of(raw[1]), []
    serve(monkeypatch, pages, asked)
    for _ in range(2):
        assert_right(raw)
    assert asked == list(pages)
    assert all(url.startswith("https://") and url.endswith("-ubyte.gz") for url in asked)


def test_wrong_downloads_are_not_kept(raw, monkeypatch):
    pages = pages_of(raw[1] | {TEST: raw[1][TEST][:-1]})
    serve(monkeypatch, pages, [])
    with pytest.raises(data.DataError, match="t10k-images-idx3-ubyte should have SHA-256"):
        load()
    serve(monkeypatch, dict.fromkeys(pages, b"<html>moved</html>"), [])
    with pytest.raises(data.DataError, match="ubyte.gz is no gzipped file"):
        load()
    assert not store.cache_folder().exists()


def test_what_was_tried_is_listed(raw, monkeypatch, capsys):
    with_apt(monkeypatch, raw[1], status=100)
    assert command_line.main(["data", "fetch", "fashion"]) == 1
    said = capsys.readouterr().err
    for part in (
        "TFP_GAPS_DATA names (not set; fashion_mnist.npz",
        str(store.cache_folder()),
        "nowhere/fashion-mnist",
        "apt-get download dataset-fashion-mnist ended with status 100 and said: E: Unable",
        f"could not be fetched from {IMAGES.mirror}/train-images-idx3-ubyte.gz (ConnectionError: "
        "Name or service",
        "Install the Debian package",
    ):
        assert part in said
    monkeypatch.setattr(packages.shutil, "which", lambda name: None)
    with pytest.raises(data.DataError, match="no command apt-get and no dpkg-deb"):
        load()


def test_a_command_that_hangs_is_given_up(raw, monkeypatch):
    def run(command, *, timeout, **options):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(packages.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(packages.subprocess, "run", run)
    with pytest.raises(data.DataError, match="apt-get.*timed out after 300 seconds"):
        load()


@pytest.mark.parametrize("damage", [lambda c: c[:-9], lambda c: b"no", lambda c: gzip.compress(c)])
def test_damaged_gzipped_files_are_refused(raw, monkeypatch, tmp_path, damage):
    write(tmp_path, raw[1], zipped=True)
    path = tmp_path / f"{TRAIN}.gz"
    path.write_bytes(damage(path.read_bytes()))
    monkeypatch.setenv("TFP_GAPS_DATA", str(tmp_path))
    with pytest.raises(data.DataError, match=r"should hold, gzipped.*tfp-gaps data fetch fashion"):
        load()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_train": 60_001}, "num_train must be"),
        ({"num_validation": 50_000, "num_train": 50_000}, "num_validation must be"),
        ({"binarisation": "otsu"}, "Known: threshold, bernoulli"),
    ],
)
def test_bad_options_are_refused_before_anything_is_fetched(monkeypatch, options, message):
    monkeypatch.setattr(images, "fetch", None)
    with pytest.raises(ValueError, match=message):
        data.load("fashion", **options)


def test_verification_knows_the_data(tmp_path):
    text = f"Fashion-MNIST, pixel SHA-256 {IMAGES.pixel_digests['train'][:12]}"
    origin = {**dict.fromkeys(results.REQUIRED, "x"), "data": text}
    results.save(tmp_path / "result.json", {}, origin)
    assert sweep.load(tmp_path / "result.json")["provenance"]["data"] == text


def is_at_hand():
    return images.find("fashion") is not None


def test_real_clothes_have_the_known_mean():
    if not is_at_hand():
        pytest.skip("the clothes are at hand nowhere: tfp-gaps data fetch fashion")
    train, test = images.pixels("fashion")
    assert train.shape == (60_000, 28, 28) and test.shape == (10_000, 28, 28)
    assert train.mean() / 255 == pytest.approx(0.2860, abs=5e-5)
    assert train.std() / 255 == pytest.approx(0.3530, abs=5e-5)
    for part, array in (("train", train), ("test", test)):
        assert storage.sha256(array.tobytes()) == IMAGES.pixel_digests[part]
    splits = data.load("fashion", num_train=100, num_test=10)
    assert splits.source.startswith("Fashion-MNIST (100 train, 0 validation, 10 test), threshold")
