"""Application `prices`: live market prices beside their history."""
