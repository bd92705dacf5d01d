"""Bridges: what brings events in from elsewhere, and the database that applications share."""
