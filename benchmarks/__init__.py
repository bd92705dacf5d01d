"""The benchmark: `python -m benchmarks.run`. What it measures, how, and what came out: docs/benchmarks.md."""
