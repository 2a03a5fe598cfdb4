"""Measure, reproduce and extend the gaps of amortised variational inference.

The evidence exceeds the evidence lower bound by a Kullback-Leibler divergence, which splits into an
approximation gap (the variational family), a conditioning gap (what the inference network is not
shown), and an amortisation gap (its capacity and its optimisation).

    measure(model, posterior, data, seed=0)          the gaps of a model of your own
    calibrate(model, posterior, num_data=500, ...)   whether its posterior is calibrated
    decompose(evidence=..., elbo=...)                the same from bounds that you have
    measure_sequence(model, posterior, x, seed=0)    the gaps of a state-space model of your own
    conditions_of(posterior, model, x)               what that posterior sees
    elbo, iwae, particle_filter, forecast            bounds and forecasts of a sequential model

Everything below is loaded when it is first used: importing the package alone takes no TensorFlow.
`tfp_gaps.exact` holds worlds with closed forms, `tfp_gaps.book` what only the book needs.
"""

import importlib

__version__ = "0.1.0"

# The module of each public name. A chapter depends on the modules of the names that it uses:
# tools/staleness.py reads this table.
_MODULES = {
    "Estimate": "estimate",
    "paired_difference": "estimate",
    "Table": "tables",
    "GapReport": "gaps",
    "decompose": "gaps",
    "Model": "models.joint",
    "Effort": "measuring",
    "Measured": "measuring",
    "measure": "measuring",
    "upper_bound": "measuring",
    "calibrate": "posteriors.calibration",
    "MeasuredSequence": "sequential.measuring",
    "SequenceEffort": "sequential.measuring",
    "measure_sequence": "sequential.measuring",
    "Bounds": "bounds",
    "elbo": "bounds",
    "iwae": "bounds",
    "particle_filter": "filtering",
    "Forecast": "forecasting",
    "forecast": "forecasting",
    "score": "forecasting",
    "Sequences": "sequences",
    "StateSpace": "models.state_space",
    "LinearGaussianStateSpace": "models.state_space",
    "VAE": "models.vae",
    "LookAhead": "posteriors.conditions",
    "LookAheadNetwork": "posteriors.look_ahead",
    "Posterior": "posteriors.encoder",
    "conditions_of": "posteriors.seeing",
    "Settings": "training",
    "fit": "training",
}
__all__ = sorted(_MODULES)


def __getattr__(name):
    if name not in _MODULES:
        raise AttributeError(
            f"module {__name__!r} has no attribute {name!r}; it offers {', '.join(__all__)}."
        )
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted([*globals(), *__all__])
