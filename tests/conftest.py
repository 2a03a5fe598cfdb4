"""Settings of the whole test suite."""

import math
import os
import shutil
import subprocess
from types import SimpleNamespace

import matplotlib
import pytest
from hypothesis import settings

# No window, whatever the machine; kernels that tests start inherit it.
matplotlib.use("agg")
os.environ.setdefault("MPLBACKEND", "agg")

# The same examples on every run; no deadline, because a shared machine stalls now and then.
settings.register_profile("book", derandomize=True, deadline=None, max_examples=30)
settings.load_profile("book")


@pytest.fixture(scope="session")
def linear_chain():
    """A scalar linear-Gaussian chain in the three forms that tests compare.

    exact: its parameters, float64.
    model: function of the number of replicas, a state-space model.
    kalman: function of the number of steps, TFP's Kalman filter.
    """
    # Imported here: most tests need no TensorFlow.
    from tfp_gaps._tensorflow import tf, tfp
    from tfp_gaps.exact.linear_gaussian import LinearGaussian
    from tfp_gaps.models.state_space import LinearGaussianStateSpace

    def normal(variance):
        return tfp.distributions.MultivariateNormalDiag(scale_diag=[math.sqrt(variance)])

    def kalman(num_timesteps):
        return tfp.distributions.LinearGaussianStateSpaceModel(
            num_timesteps,
            tf.constant([[0.9]]),
            normal(0.5),
            tf.constant([[1.0]]),
            normal(1.0),
            normal(2.0),
        )

    exact = LinearGaussian(
        transition=0.9, transition_cov=0.5, emission=1.0, emission_cov=1.0, initial_cov=2.0
    )

    def model(num_replicas=1):
        return LinearGaussianStateSpace(exact, num_replicas=num_replicas)

    return SimpleNamespace(exact=exact, model=model, kalman=kalman)


@pytest.fixture(scope="session")
def run_script():
    """Run JavaScript outside a browser and return what it prints; needs Node."""
    if shutil.which("node") is None:
        pytest.skip("needs node to run the script")

    def run(script):
        command = ["node", "-e", script]
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        return found.stdout

    return run
