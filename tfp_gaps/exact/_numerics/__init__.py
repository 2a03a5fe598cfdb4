"""Numerical methods that the closed-form worlds share."""
