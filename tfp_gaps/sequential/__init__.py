"""State-space models that somebody brings: networks for them, and what their gaps are."""
