"""The PyTorch step behind the interface that all workers share."""

import copy
import os

import numpy as np
import torch

from benchmarks.peers.torch_step import StateSpaceELBO, train_step
from benchmarks.sizes import CLIP_NORM, LEARNING_RATE, observations

VARIANTS = ("eager", "compiled")

torch.set_num_threads(int(os.environ["BENCH_THREADS"]))


def load(model, arrays, seed):
    """Copy the exported parameters of one seed into a `StateSpaceELBO`."""

    def linear(layer, name):
        layer.weight.copy_(torch.tensor(arrays[f"{name}/kernel"][seed].T))
        if layer.bias is not None:
            layer.bias.copy_(torch.tensor(arrays[f"{name}/bias"][seed]))

    with torch.no_grad():
        for name in ("initial_mean", "initial_raw", "noise_raw"):
            if name in arrays:
                getattr(model, name).copy_(torch.tensor(arrays[name][seed]))
        for network in ("transition", "emission"):
            linear(getattr(model, network)[0], f"{network}/hidden")
            linear(getattr(model, network)[2], f"{network}/output")
        for name in ("join", "latent", "output"):
            linear(getattr(model, name), name)
        for direction, suffix in (("forward", "l0"), ("backward", "l0_reverse")):
            for ours, theirs in (("read", "ih"), ("recurrent", "hh")):
                for kind, prefix in (("kernel", "weight"), ("bias", "bias")):
                    value = torch.tensor(arrays[f"{direction}/{ours}/{kind}"][seed].T)
                    getattr(model.encoder, f"{prefix}_{theirs}_{suffix}").copy_(value)


class Trainer:
    """One model and optimiser per seed; the seeds are trained one after another."""

    def __init__(self, size, variant, initial):
        self.size = size
        self.data = torch.tensor(observations(size))
        self.models = [StateSpaceELBO(size) for _ in range(size.num_seeds)]
        for seed, model in enumerate(self.models):
            load(model, initial, seed)
        self.initial = copy.deepcopy(self.models)
        self.optimizers = [self._optimizer(model) for model in self.models]
        self.losses = [
            torch.compile(model) if variant == "compiled" else model for model in self.models
        ]

    def _optimizer(self, model):
        return torch.optim.Adam(model.parameters(), LEARNING_RATE, eps=1e-7, fused=True)

    def _batch(self, indices):
        return self.data[indices].transpose(0, 1).to(torch.float32)

    def train(self, indices):
        """Take one step for each row of `indices` and wait; return the last losses, [seeds]."""
        size = self.size
        shape = [size.num_timesteps, size.batch_size, size.latent_size]
        indices = torch.tensor(indices)
        last = [0.0] * size.num_seeds
        for step_indices in indices:
            for seed, loss in enumerate(self.losses):
                last[seed] = train_step(
                    loss,
                    self.optimizers[seed],
                    self._batch(step_indices[seed]),
                    torch.randn(shape),
                    CLIP_NORM,
                )
        return np.array([float(value) for value in last])

    def losses_with(self, indices, noise):
        """Return the losses before and after one step with given noise, [2, seeds]."""
        values = np.zeros([2, self.size.num_seeds])
        for seed, model in enumerate(self.initial):
            optimizer = self._optimizer(model)
            for i in (0, 1):
                values[i, seed] = train_step(
                    model,
                    optimizer,
                    self._batch(torch.tensor(indices[seed])),
                    torch.tensor(noise[seed]),
                    CLIP_NORM,
                )
        return values


def build_matmul(width):
    """Return a function that multiplies two square float32 matrices and waits."""
    a = torch.randn(width, width)
    return lambda: torch.mm(a, a).sum().item()
