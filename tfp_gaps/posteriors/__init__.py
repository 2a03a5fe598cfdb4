"""Approximate posteriors: what they may see, how they are parametrised, how they are sampled."""
