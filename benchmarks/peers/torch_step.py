"""A training step of the state-space model in PyTorch, as its users would write it.

`nn.GRU` reads the observations in both directions, a Python loop runs through the latent states,
everything that needs no loop is computed for all time steps at once.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

MINIMUM_SCALE = 0.02


def positive(raw, minimum):
    return F.softplus(raw - 1.0) + minimum


class StateSpaceELBO(nn.Module):
    """The generative model, the inference network and their negative ELBO, nats per sequence."""

    def __init__(self, size):
        super().__init__()
        x, z, h = size.observation_size, size.latent_size, size.hidden_size
        self.emission_family = size.emission
        self.initial_mean = nn.Parameter(torch.zeros(z))
        self.initial_raw = nn.Parameter(torch.full([z], 1.5413))
        self.transition = nn.Sequential(nn.Linear(z, h), nn.ReLU(), nn.Linear(h, 3 * z))
        self.emission = nn.Sequential(nn.Linear(z, h), nn.ReLU(), nn.Linear(h, x))
        if size.emission == "normal":
            self.noise_raw = nn.Parameter(torch.ones(x))
        self.encoder = nn.GRU(x, h, bidirectional=True)
        self.join = nn.Linear(2 * h, h)
        self.latent = nn.Linear(z, h, bias=False)
        self.output = nn.Linear(h, 2 * z)

    def forward(self, observations, noise):
        """Return the loss for observations [time, batch, x] and noise [time, batch, z]."""
        forward, backward = self.encoder(observations)[0].chunk(2, -1)
        # Under full conditions every step sees all observations: the last state has read them.
        context = self.join(torch.cat([forward[-1:].expand_as(forward), backward], -1))
        prior_mean = self.initial_mean.expand_as(noise[0])
        prior_scale = positive(self.initial_raw, MINIMUM_SCALE).expand_as(noise[0])
        hidden = context[0]
        latents, offsets, ratios = [], [], []
        for t in range(len(noise)):
            if t > 0:
                latent = latents[-1]
                gate, proposal, raw = self.transition(latent).chunk(3, -1)
                gate = torch.sigmoid(gate)
                prior_mean = (1.0 - gate) * latent + gate * proposal
                prior_scale = positive(raw, MINIMUM_SCALE)
                hidden = context[t] + self.latent(latent)
            correction, raw = self.output(torch.relu(hidden)).chunk(2, -1)
            scale = positive(raw, MINIMUM_SCALE)
            latents.append(prior_mean + correction + scale * noise[t])
            offsets.append(correction / prior_scale)
            ratios.append(scale / prior_scale)
        offset, ratio = torch.stack(offsets), torch.stack(ratios)
        divergence = (0.5 * (ratio**2 + offset**2 - 1.0) - torch.log(ratio)).sum()
        log_likelihood = self.log_likelihood(torch.stack(latents), observations)
        return (divergence - log_likelihood) / observations.shape[1]

    def log_likelihood(self, latents, observations):
        outputs = self.emission(latents)
        if self.emission_family == "bernoulli":
            return -F.binary_cross_entropy_with_logits(outputs, observations, reduction="sum")
        scale = positive(self.noise_raw, 0.05)
        standardised = (observations - outputs) / scale
        constant = math.log(2 * math.pi)
        return -(0.5 * (standardised**2 + constant) + torch.log(scale)).sum()


def train_step(model, optimizer, observations, noise, clip_norm):
    """Take one step and return the loss before it; `model` may be compiled."""
    loss = model(observations, noise)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
    return loss.detach()
