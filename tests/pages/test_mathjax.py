"""tools/mathjax.py: fetched once, whole or not at all, and a plain message when it cannot be."""

import io
import tarfile

import pytest

import mathjax
from tfp_gaps.book.data import packages


def archive(names=tuple(mathjax.FILES)):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"text"))
    return buffer.getvalue()


def test_it_is_fetched_once(tmp_path):
    asked = []

    def fetch(name, version, *, digest):
        asked.append((name, version, digest))
        return archive()

    folder = tmp_path / "extra" / "mathjax"
    for _ in range(2):
        assert mathjax.provide(folder, fetch=fetch) == folder
    assert asked == [("mathjax", "3.2.2", mathjax.DIGEST)]
    assert {path.name for path in folder.iterdir()} == {"tex-svg-full.js", "LICENSE", "version"}
    (folder / "tex-svg-full.js").unlink()
    mathjax.provide(folder, fetch=fetch)
    assert len(asked) == 2


def test_an_incomplete_archive_leaves_nothing(tmp_path):
    folder, one_file = tmp_path / "mathjax", ["package/es5/tex-svg-full.js"]
    with pytest.raises(packages.FetchError, match="LICENSE"):
        mathjax.provide(folder, fetch=lambda *_, digest: archive(one_file))
    assert not folder.exists()


def test_without_npm_the_message_says_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert mathjax.main(tmp_path) == 1
    assert "The pages need MathJax for their formulas: expected the command npm" in (
        capsys.readouterr().err
    )
