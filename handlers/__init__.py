"""The HTTP surface over the engine."""
