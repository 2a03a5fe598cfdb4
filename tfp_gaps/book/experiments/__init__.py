"""One file per experiment of the book: data, model, conditioning, fit and bounds in one result."""

BENCHMARKS = ("digits", "traffic", "uav")
"""The sequential benchmarks of Bayer et al. (2021)."""

STATIC = (
    "vae",
    "encoders",
    "inductive_bias",
    "flows",
    "blind",
    "two_latents",
    "known_dynamics",
    "imagined",
)
"""Experiments without time: a run of one has no look-ahead."""

CONTROL = ("world_models",)
"""Experiments in which an agent acts on what it has learned."""

NAMES = (*BENCHMARKS, *STATIC, *CONTROL)
"""All experiments that `tfp-gaps run` knows."""
