"""Tables as HTML and as text."""

import pytest

from tfp_gaps.tables import Table, show_markdown


def test_cells_are_escaped_and_rows_have_headers():
    page = Table(["k", "a < b"], [[0, "<script>"]])._repr_html_()
    assert "a &lt; b" in page and "&lt;script&gt;" in page
    assert '<th scope="row">0</th>' in page


def test_ragged_rows_are_refused():
    with pytest.raises(ValueError, match="every row must have 2 cells"):
        Table(["a", "b"], [[1, 2], [3]])


def test_markdown_is_shown_as_markdown(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    show_markdown(["$k$", "gap"], [["0", "1.5"], ["1", "0.5"]])
    assert shown[0].data == "| $k$ | gap |\n| --- | --- |\n| 0 | 1.5 |\n| 1 | 0.5 |"


def test_negative_numbers_have_a_true_minus_on_a_page_and_a_plain_one_in_text():
    table = Table(["q(z | x, t-1)", "-1"], [["-0.5 ± 0.1", "1e-05"]])
    page = table._repr_html_()
    assert "\N{MINUS SIGN}0.5 ± 0.1" in page and "t-1" in page and "1e-05" in page
    assert str(table).endswith("-0.5 ± 0.1     1e-05")
