"""Plan by the cross-entropy method, from a set of states that the agent holds for possible.

    a*_{1:H} = argmax_a  1/P sum_i sum_h r(s_h^i, a_h, s_{h+1}^i),     s_1^i ~ belief

Candidates are drawn from a normal distribution over action sequences, the best of them say where
the next ones are drawn. The plan is one sequence for all particles: it hedges, and does not count
on what later observations will tell. The first action is carried out, the rest starts the next
search (model-predictive control).

A simulator is anything that offers `action_size`, `action_bound`, `noise_size`, `limit(action)`,
`advance(state, action, noise)` and `reward(state, action, next_state)` as the environments do; the
true one gives the reference, a learned one what its model is worth.

References: Rubinstein and Kroese (2004), The Cross-Entropy Method; Hafner et al. (2019) for its use
with learned models.
"""

import math
from dataclasses import dataclass

from tfp_gaps import _checks
from tfp_gaps._tensorflow import tf
from tfp_gaps.networks import split_seeds


@dataclass(frozen=True)
class Planner:
    """Settings of the search.

    horizon: H, actions ahead.
    num_candidates: action sequences per iteration.
    num_elite: how many of them set the next distribution.
    num_iterations: of drawing and choosing.
    memory: correlation of successive actions of a candidate, from 0 to below 1.
    spread: initial standard deviation, as a share of the bound.

    Raises:
      ValueError: for counts below one, more elite than candidates, or a memory or spread outside of
        its range.

    >>> Planner(horizon=12, num_candidates=64).num_elite
    8
    """

    horizon: int
    num_candidates: int = 128
    num_elite: int = 8
    num_iterations: int = 4
    memory: float = 0.6
    spread: float = 1.0

    def __post_init__(self):
        for name in ("horizon", "num_candidates", "num_elite", "num_iterations"):
            _checks.integer(getattr(self, name), name, minimum=1)
        if self.num_elite > self.num_candidates:
            raise ValueError(
                f"num_elite must be at most num_candidates, which is {self.num_candidates}, but is "
                f"{self.num_elite}. Keep about a tenth of the candidates."
            )
        if not 0 <= self.memory < 1:
            raise ValueError(f"memory must be at least 0 and below 1, but is {self.memory!r}.")
        _checks.positive_float(self.spread, "spread")

    def start(self, batch, action_size):
        """The plan before anything is known: do nothing, [batch, horizon, action]."""
        return tf.zeros([batch, self.horizon, action_size])

    def improve(self, simulator, particles, plan, seed):
        """Search around a plan for one with a higher return.

        Args:
          simulator: see above.
          particles: equally weighted states, [batch, particles, state].
          plan: where to begin, [batch, horizon, action].
          seed: int32 [2], stateless.

        Returns:
          plan: [batch, horizon, action].

        Raises:
          ValueError: for shapes that do not fit each other.
        """
        _check(self, simulator, particles, plan)
        wide = tf.fill(tf.shape(plan), float(self.spread * simulator.action_bound))
        noise_seed, move_seed = (part[0] for part in split_seeds(seed[tf.newaxis], 2))
        # The same future noises for all candidates, so that they differ by their actions alone.
        moves = tf.random.stateless_normal(
            [self.horizon, *particles.shape[:2], simulator.noise_size], move_seed, alg="philox"
        )
        mean, deviation = plan, wide
        for iteration in range(self.num_iterations):
            key = tf.random.fold_in(noise_seed, iteration)
            candidates = simulator.limit(mean + deviation * self._draw(tf.shape(plan), key))
            returns = expected_return(simulator, particles, candidates, moves)
            # A model that is unstable may return no number: such a candidate is never the best.
            returns = tf.where(tf.math.is_finite(returns), returns, -math.inf)
            mean, deviation = self._elite(candidates, returns)
        return mean

    def _draw(self, shape, seed):
        """Noise of unit variance that is correlated over the horizon, [candidates, *shape]."""
        fresh = tf.random.stateless_normal(
            tf.concat([[self.num_candidates], shape], 0), seed, alg="philox"
        )
        path = [fresh[:, :, 0]]
        for h in range(1, self.horizon):
            path.append(self.memory * path[-1] + math.sqrt(1 - self.memory**2) * fresh[:, :, h])
        return tf.stack(path, 2)

    def _elite(self, candidates, returns):
        """Mean and standard deviation of the best candidates, each [batch, horizon, action]."""
        best = tf.math.top_k(tf.transpose(returns), self.num_elite).indices
        chosen = tf.gather(tf.transpose(candidates, [1, 0, 2, 3]), best, batch_dims=1)
        return tf.reduce_mean(chosen, 1), tf.math.reduce_std(chosen, 1)


def shifted(plan):
    """The plan one step later; its last action is repeated.

    >>> shifted(tf.constant([[[1.0], [2.0], [3.0]]])).numpy().ravel().tolist()
    [2.0, 3.0, 3.0]
    """
    return tf.concat([plan[:, 1:], plan[:, -1:]], 1)


def expected_return(simulator, particles, candidates, moves):
    """Mean over particles of the sum of rewards along each candidate.

    Args:
      simulator: see above.
      particles: [batch, particles, state].
      candidates: [candidates, batch, horizon, action].
      moves: standard normal [horizon, batch, particles, noise].

    Returns:
      returns: [candidates, batch].
    """
    count, batch, horizon, size = candidates.shape
    state = tf.broadcast_to(particles, [count, *particles.shape])

    def advance(h, state, total):
        action = tf.broadcast_to(
            candidates[:, :, h, tf.newaxis], [count, batch, particles.shape[1], size]
        )
        noise = tf.broadcast_to(moves[h], [count, *moves.shape[1:]])
        after = simulator.advance(state, action, noise)
        total += tf.reduce_mean(simulator.reward(state, action, after), -1)
        return h + 1, after, total

    # A loop of the graph: written out, the compiler merges the steps of a learned model into
    # expressions that grow exponentially.
    start = (tf.constant(0), state, tf.zeros([count, batch]))
    return tf.while_loop(lambda h, *_: h < horizon, advance, start)[2]


def _check(planner, simulator, particles, plan):
    if particles.shape.rank != 3:
        raise ValueError(
            f"particles must have shape [batch, particles, state], but have shape "
            f"{tuple(particles.shape)}. Give one known state the shape [batch, 1, state]."
        )
    wanted = (particles.shape[0], planner.horizon, simulator.action_size)
    if tuple(plan.shape) != wanted:
        raise ValueError(
            f"plan must have shape [batch, horizon, action] = {wanted}, but has shape "
            f"{tuple(plan.shape)}. Begin with Planner.start, and go on with shifted(plan)."
        )
