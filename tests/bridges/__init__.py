"""Bridges, and the database that applications share."""
