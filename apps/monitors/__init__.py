"""Monitors: whether tenants' sites answer, checked by a worker and told to their dashboards."""
