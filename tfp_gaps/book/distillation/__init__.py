"""Filters and backward kernels that are learned from draws of a model or of its posterior."""
