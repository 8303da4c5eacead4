"""How fast a pool is scanned, and against what: `python -m benchmarks.scan --help`."""
