"""Attacks on one node, each with its control; docs/threats.md is the table of them."""
