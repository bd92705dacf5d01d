"""Makes Locust follow stages. It goes beside a crowd: `-f benchmarks/locust/facilities.py,benchmarks/locust/shape.py`.

The publishers are there from the beginning to the end, beside the readers that the stages speak of. `--users`,
`--spawn-rate` and `--run-time` say nothing here.
"""

from __future__ import annotations

from locust import LoadTestShape

from benchmarks.locust.stages import UP_AND_DOWN, Stage, length_seconds, readers_at

TICK_SECONDS = 1.0  # Locust asks so often


class Stages(LoadTestShape):
    """Users at each moment; `--stage-scale` makes all stages longer or shorter."""

    def tick(self) -> tuple[int, float] | None:
        assert self.runner is not None and self.runner.environment.parsed_options is not None
        options = self.runner.environment.parsed_options
        stages = [Stage(stage.seconds * options.stage_scale, stage.readers) for stage in UP_AND_DOWN]
        now = self.get_run_time()
        if now >= length_seconds(stages):
            return None
        # Where the next tick should find it: Locust comes back when that is reached.
        users = options.publishers + readers_at(stages, now + TICK_SECONDS)
        return users, max(1.0, abs(users - self.get_current_user_count()) / TICK_SECONDS)
