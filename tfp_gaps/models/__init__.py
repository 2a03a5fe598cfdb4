"""Generative models: densities only, no inference networks."""
