"""Measurements with public tools; each writes benchmarks/results/NAME.json."""
