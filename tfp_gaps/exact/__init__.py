"""Worlds in which every gap has a closed form.

Each estimator of the package meets one of these before it is used where no truth exists. They hold
NumPy float64 mathematics and know nothing of networks or training.
"""
