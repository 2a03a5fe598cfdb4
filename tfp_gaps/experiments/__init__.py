"""One file per experiment of the book: data, model, conditioning, fit and bounds wired into a
result."""
