"""Decision problems with known dynamics, in which agents act on what they believe."""
