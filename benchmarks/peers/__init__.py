"""Other servers for the same work, each written the natural way for its framework; see docs/benchmarks.md for what
they show.
"""
