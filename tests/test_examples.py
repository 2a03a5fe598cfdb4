"""The scripts in examples/, run small: each stands alone, is short, and prints its table."""

import importlib.util
from pathlib import Path

import pytest

from tfp_gaps import Effort

FOLDER = Path(__file__).resolve().parent.parent / "examples"
EFFORT = Effort(num_samples=100, search_steps=20, num_chains=0)
CHAINS = Effort(num_samples=100, search_steps=20, num_chains=4, num_temperatures=20)
SMALL = {
    "vae": {"steps": 20, "effort": EFFORT},
    "eight_schools": {"steps": 10, "effort": CHAINS},
    "markov_chain": {"num_data": 4, "effort": EFFORT},
    "deep_markov_model": {"steps": 10, "particles": 20},
    "simulator": {"effort": CHAINS},
}


def test_all_scripts_are_here():
    assert {path.stem for path in FOLDER.glob("*.py")} == set(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_a_script_is_short_and_the_readme_leads_to_it(name):
    lines = (FOLDER / f"{name}.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) < 40
    assert f"(examples/{name}.py)" in (FOLDER.parent / "README.md").read_text(encoding="utf-8")


# At this size bounds are loose, and `measure` says so.
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", SMALL)
def test_a_script_prints_its_table(name, capsys):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main(**SMALL[name])
    shown = capsys.readouterr().out
    assert "ELBO" in shown and "±" in shown and len(shown.splitlines()) < 24
    if name == "deep_markov_model":
        assert len(shown.splitlines()) == 4  # what three networks see
    else:
        assert "− approximation gap" in shown
