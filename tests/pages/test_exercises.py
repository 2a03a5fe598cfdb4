"""Every chapter ends with an attempt to break it, whose answer was executed and is folded."""

import json
import pathlib

import pytest

BOOK = pathlib.Path(__file__).resolve().parents[2] / "book"
CHAPTERS = sorted(path.stem for path in BOOK.glob("*.ipynb") if path.stem != "index")


@pytest.mark.parametrize("name", CHAPTERS)
def test_the_question_is_open_and_its_answer_folded_and_executed(name):
    cells = json.loads((BOOK / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells]
    places = [i for i, source in enumerate(sources) if source.startswith("## Try to break it\n")]
    assert len(places) == 1 and places[0] > len(cells) - 5
    question, answer = sources[places[0]], cells[places[0] + 1]
    assert "?" in question
    assert answer["cell_type"] == "code" and answer["metadata"]["tags"] == ["hide-cell"]
    assert answer["metadata"]["mystnb"]["code_prompt_show"] == "Show the answer"
    assert answer["execution_count"] and answer["outputs"]
    assert not any(output["output_type"] == "error" for output in answer["outputs"])
