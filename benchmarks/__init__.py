"""How fast fumehood is, beside references measured in the same run: `python -m benchmarks`."""
