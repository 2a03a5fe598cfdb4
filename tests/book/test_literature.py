"""The survey of published models: complete entries that say the same in words and in conditions."""

import re
from pathlib import Path

import pytest

from tfp_gaps.book import literature

BIBLIOGRAPHY = Path(__file__).resolve().parent.parent.parent / "book" / "references.bib"


@pytest.mark.parametrize("model", literature.MODELS, ids=lambda model: model.name)
def test_entries_are_complete(model):
    entry = re.search(
        rf"@\w+{{{model.citation},\n(.*?)\n}}", BIBLIOGRAPHY.read_text(encoding="utf-8"), re.DOTALL
    )
    assert entry, f"{model.citation} is missing in references.bib"
    # Preprints and proceedings may be some years apart, so only the order of time is checked.
    assert abs(int(re.search(r"year = {(\d+)}", entry[1])[1]) - model.year) <= 1
    assert re.fullmatch(r"[0-9a-f]{40}", model.commit)
    assert re.fullmatch(r"[\w-]+/[\w-]+", model.repository) and model.path.endswith(".py")


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


def test_unknown_names():
    with pytest.raises(ValueError, match="model"):
        literature.by_name("GRU")
    with pytest.raises(ValueError, match="scheme"):
        literature.scheme("everything", 4)
