"""Faults injected into one node under load, each judged by the same checker: no silent loss, one order, nothing twice,
nothing made up.
"""
