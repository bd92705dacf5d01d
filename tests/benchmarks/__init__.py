"""That the benchmark counts what it says it counts."""
