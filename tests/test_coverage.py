"""A tenth of `benchmarks.coverage`: intervals of `measure` hold ln p(x) as often as they say."""

import numpy as np
import pytest

from benchmarks import coverage, resuming
from tfp_gaps import Effort
from tfp_gaps.book import results


@pytest.fixture(scope="module")
def counts():
    return coverage.count(coverage.NUM_WORLDS // 10)


def test_intervals_hold_the_evidence_and_no_bound_exceeds_it(counts):
    total = sum(counts.values(), coverage.Count())
    assert total.reliable + total.flagged == 204
    assert total.reliable > 0.8 * 204, "what is flagged is not tested"
    # Of so many, 95 % hold it to within three errors of a binomial share.
    assert abs(total.held - 0.95 * total.reliable) < 3 * np.sqrt(0.05 * 0.95 * total.reliable)
    assert total.too_high == 0 and total.bounds >= 5 * 204
    assert coverage.table(counts).rows[-1][0] == "all"


def test_errors_of_half_the_size_and_bounds_that_are_raised_are_noticed():
    """The count itself, on worlds whose bounds are spoilt."""
    worlds = coverage.conjugate_normal(np.random.default_rng(0), 60)
    effort = Effort(num_samples=200, search_steps=20, num_chains=0, num_starts=1)
    found = worlds.measured(0, effort)
    honest = coverage.Count.of(found, worlds.evidence)
    for name in found.errors:
        found.errors[name] *= 0.3
    narrow = coverage.Count.of(found, worlds.evidence)
    assert honest.held + honest.flagged_held > 60 * 0.85 > narrow.held + narrow.flagged_held
    for name in found.bounds:
        found.bounds[name] += 6 * found.errors[name] + 0.1
    assert coverage.Count.of(found, worlds.evidence).too_high > 0


def test_an_interrupted_run_goes_on_only_with_what_the_same_code_stored(tmp_path):
    path, known = tmp_path / "counts.json", {name: coverage.Count(3) for name in coverage.FAMILIES}
    origin = results.provenance(command="count", data="simulated", seeds=[0], seconds=7.0)
    assert resuming.stored(path, origin) == resuming.stored(None, origin) == ({}, 0.0)
    results.save(path, {"families": {"a": vars(coverage.Count(3))}}, origin)
    found, seconds = resuming.stored(path, origin | {"seconds": 0.0})
    assert found["families"]["a"] == vars(coverage.Count(3)) and seconds == 7.0
    assert resuming.stored(path, origin | {"commit": "another"}) == ({}, 0.0)
    assert coverage.count(counted=known) == known  # nothing is measured again
