"""Relays: where a channel's log lives."""
