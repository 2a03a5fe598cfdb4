"""The hidden Markov chain against direct minimisation over every table of q."""

import itertools

import numpy as np
import pytest
import scipy.optimize
from scipy import special

from tfp_gaps.exact.hidden_markov import conditioning_gaps, random_chain


def joint(chain, z, x):
    """p(z_{1:T}, x_{1:T}) as a product, no recursion."""
    probability = chain.initial[z[0]]
    for previous, state in itertools.pairwise(z):
        probability *= chain.transition[previous, state]
    return probability * np.prod([chain.emission[s, v] for s, v in zip(z, x, strict=True)])


def direct_gap(chain, num_timesteps, lookahead):
    """Minimise E_x KL(q || p(z | x)) over the logits of q(z_t | z_{t-1}, x_{1:t+k})."""
    states, symbols = chain.emission.shape
    sequences = list(itertools.product(range(symbols), repeat=num_timesteps))
    paths = list(itertools.product(range(states), repeat=num_timesteps))
    log_joint = np.log([[joint(chain, z, x) for z in paths] for x in sequences])
    seen = [min(t + lookahead + 1, num_timesteps) for t in range(num_timesteps)]
    tables = {}
    for x, t in itertools.product(sequences, range(num_timesteps)):
        tables.setdefault((t, x[: seen[t]]), len(tables))
    # Where ln q(z_t | z_{t-1}, C_t) stands, for each sequence, path and time.
    places = np.array(
        [
            [
                [
                    (tables[t, x[: seen[t]]], z[t - 1] if t else 0, z[t])
                    for t in range(num_timesteps)
                ]
                for z in paths
            ]
            for x in sequences
        ]
    )
    index = tuple(np.moveaxis(places, -1, 0))
    evidence = special.logsumexp(log_joint, axis=1)

    def gap(logits):
        log_q = special.log_softmax(logits.reshape(len(tables), states, states), axis=-1)
        log_paths = log_q[index].sum(axis=-1)
        divergence = np.exp(log_paths) * (log_paths - log_joint + evidence[:, np.newaxis])
        return np.exp(evidence) @ divergence.sum(axis=1)

    start = np.zeros(len(tables) * states**2)
    return scipy.optimize.minimize(gap, start, method="BFGS").fun


@pytest.mark.parametrize(
    ("seed", "num_timesteps", "lookahead"), [(0, 2, 0), (1, 3, 0), (2, 3, 1), (3, 3, 2)]
)
def test_best_gap_matches_direct_minimisation(seed, num_timesteps, lookahead):
    chain = random_chain(2, 2, seed)
    found = conditioning_gaps(chain, num_timesteps, lookahead).best
    # BFGS with numerical gradients of 1e-5: the value is off by their square over the curvature.
    assert found == pytest.approx(direct_gap(chain, num_timesteps, lookahead), abs=1e-6)


def test_plain_product_costs_more_and_the_last_free_step_costs_the_same():
    for seed in range(20):
        chain = random_chain(2, 2, seed)
        gaps = conditioning_gaps(chain, 4, 0)
        # Tiny gaps are differences of numbers of order one: rounding at 1e-15.
        assert gaps.best - 1e-14 <= gaps.plain < 1.05 * gaps.best
        # With two steps only the first factor lacks anything, so there is no later gap to avoid.
        short = conditioning_gaps(chain, 2, 0)
        assert short.plain == pytest.approx(short.best, abs=1e-14)


def test_gap_falls_with_look_ahead():
    chain = random_chain(3, 2, seed=5)
    gaps = [conditioning_gaps(chain, 4, k).best for k in (0, 1, 2, 3)]
    assert all(a > b for a, b in itertools.pairwise(gaps))
    assert gaps[-1] == pytest.approx(0.0, abs=1e-14)
    assert conditioning_gaps(chain, 1, 0).best == pytest.approx(0.0, abs=1e-14)


GOOD = random_chain(2, 3, seed=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: conditioning_gaps(GOOD._replace(initial=[0.5, 0.4]), 3, 0), "initial must sum"),
        (lambda: conditioning_gaps(GOOD._replace(initial=[1.0, 0.0]), 3, 0), "greater than zero"),
        (lambda: conditioning_gaps(GOOD._replace(initial=[1.0]), 3, 0), "transition must have"),
        (lambda: conditioning_gaps(GOOD._replace(emission=[[1.0]]), 3, 0), "emission 2 row"),
        (lambda: conditioning_gaps(GOOD._replace(emission=np.nan), 3, 0), "emission must have 2"),
        (lambda: conditioning_gaps(GOOD, 0, 0), "num_timesteps"),
        (lambda: conditioning_gaps(GOOD, 3, -1), "lookahead"),
        (lambda: random_chain(0, 2, seed=0), "num_states"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
