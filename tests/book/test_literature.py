"""The survey of published models: complete entries that say the same in words and in conditions."""

import re
from pathlib import Path

import pytest
import yaml

from tfp_gaps.book import files, literature

BIBLIOGRAPHY = Path(__file__).resolve().parent.parent.parent / "book" / "references.bib"


@pytest.mark.parametrize("model", literature.MODELS, ids=lambda model: model.name)
def test_entries_are_complete(model):
    entry = re.search(
        rf"@\w+{{{model.citation},\n(.*?)\n}}", BIBLIOGRAPHY.read_text(encoding="utf-8"), re.DOTALL
    )
    assert entry, f"{model.citation} is missing in references.bib"
    # Preprints and proceedings may be some years apart, so only the order of time is checked.
    assert abs(int(re.search(r"year = {(\d+)}", entry[1])[1]) - model.year) <= 1


@pytest.mark.parametrize("model", literature.MODELS, ids=lambda model: model.name)
def test_words_and_conditions_agree(model):
    seen = literature.scheme(model.scheme, 5)
    # Who sees the last observation at every step says so.
    whole = "x_T" in model.sees or "twists" in model.sees
    assert whole is not seen.is_blind_to_the_future
    assert ("z₁…" in model.sees or "zₜ₋₁" in model.sees or "Kalman" in model.sees) is bool(
        seen.latents.any()
    )
    assert ("later observations" in model.lacks) is seen.is_blind_to_the_future


def test_every_scheme_belongs_to_somebody():
    assert {model.scheme for model in literature.MODELS} == set(literature.SCHEMES)


def test_survey_links_to_code_and_prints_without():
    page = literature.Survey()._repr_html_()
    assert page.count("<tr>") == len(literature.MODELS) + 1
    assert all(model.url in page for model in literature.MODELS)
    assert "http" not in str(literature.Survey())


ENTRY = {
    "name": "GRU",
    "year": 2014,
    "citation": "somebody2014",
    "sees": "xₜ",
    "needs": "zₜ₋₁",
    "scheme": "present",
    "repository": "some-body/GRU.code",
    "commit": "0123456789" * 4,
    "path": "models/gru.py",
    "place": "GRU.forward",
}


def load(folder, *entries):
    (folder / "models.yml").write_text(yaml.safe_dump(list(entries)), encoding="utf-8")
    return literature.load(folder / "models.yml")


def test_optional_fields(tmp_path):
    (model,) = load(tmp_path, ENTRY)
    assert (model.is_world_model, model.remark) == (False, "")
    (model,) = load(tmp_path, {**ENTRY, "is_world_model": True, "remark": "It acts."})
    assert (model.is_world_model, model.remark) == (True, "It acts.")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"year": "2014"}, r"entry 2 \(GRU\): year must be of type int, but is '2014'"),
        ({"year": True}, "year must be of type int, but is True"),
        ({"sees": " "}, "sees must be some text"),
        ({"place": None}, "place must be some text, but is None"),
        ({"is_world_model": "yes"}, "is_world_model must be of type bool"),
        ({"commit": "main"}, "commit must be 40 hexadecimal digits, but is 'main'"),
        ({"commit": 10**39}, "commit must be 40 hexadecimal digits"),
        ({"repository": "https://github.com/a/b"}, "repository must be owner/name"),
        ({"path": "models"}, "path must be the path of a Python file"),
        ({"scheme": "everything"}, "Unknown scheme 'everything'"),
        ({"link": "x"}, r"entry 2: missing fields \[\], unknown fields \['link'\]"),
        ({"name": "SRNN"}, "the name SRNN was used before"),
    ],
)
def test_bad_entries_are_named(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        load(tmp_path, {**ENTRY, "name": "SRNN"}, {**ENTRY, **change})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- {name: GRU, year: 2014}", r"entry 1: missing fields \['citation', 'sees'"),
        ("- GRU", "entry 1 must be key: value pairs, but is str"),
        ("models: []", "must be a list of models, but holds dict"),
        ("- {name: GRU, name: LSTM}", "not valid YAML: key given twice: name"),
        ("- [", "not valid YAML"),
    ],
)
def test_bad_files(tmp_path, text, message):
    (tmp_path / "models.yml").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        literature.load(tmp_path / "models.yml")
    with pytest.raises(ValueError, match="Cannot read the models file"):
        literature.load(tmp_path / "nothing.yml")


def test_the_file_beside_the_notebook_wins(tmp_path, monkeypatch):
    assert files.find("literature.yml") == BIBLIOGRAPHY.parent / "literature.yml"
    (tmp_path / "book").mkdir()
    for place in (tmp_path / "book" / "literature.yml", tmp_path / "literature.yml"):
        place.write_text("")
        monkeypatch.chdir(tmp_path)
        assert files.find("literature.yml") == place
    with pytest.raises(FileNotFoundError, match="No nothing.yml found"):
        files.find("nothing.yml")


def test_unknown_names():
    with pytest.raises(ValueError, match="model"):
        literature.by_name("GRU")
    with pytest.raises(ValueError, match="scheme"):
        literature.scheme("everything", 4)
