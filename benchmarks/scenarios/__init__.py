"""One module for each target: `NAME`, `TITLE`, `TARGET` and `run(lab)`, which fills an Outcome. `ALL` gives their
order.

A scenario knows the load generator's options and the report's names; it starts servers through the lab alone.
"""

from __future__ import annotations

from types import ModuleType

from benchmarks.scenarios import (
    cluster,
    company_streams,
    delivery_cost,
    distinct_filters,
    facility_cache,
    facility_streams,
    idle_cpu,
    idle_memory,
    latency,
    opening_cost,
    publish_rate,
    region_streams,
    relay_cost,
    replay,
    scaling,
    stalled_readers,
    throughput,
)

# What `--quick` leaves out unless it is asked for by name: these compare runs that differ little, which takes time.
SLOW: tuple[ModuleType, ...] = (
    cluster,
    relay_cost,
    distinct_filters,
    region_streams,
    stalled_readers,
    facility_streams,
    facility_cache,
    company_streams,
)

ALL: tuple[ModuleType, ...] = (
    delivery_cost,
    throughput,
    opening_cost,
    idle_memory,
    idle_cpu,
    scaling,
    latency,
    publish_rate,
    relay_cost,
    distinct_filters,
    region_streams,
    stalled_readers,
    replay,
    cluster,
    facility_streams,
    facility_cache,
    company_streams,
)
