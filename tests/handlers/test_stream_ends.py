"""The end of an application's stream, whenever it comes."""

from __future__ import annotations

import asyncio

from tests.handlers.test_stream_routes import house, run, to_the_end


def test_who_was_being_admitted_when_the_end_came_is_ended_too() -> None:
    """J3: admission has seen a job that was not finished, and took longer than a tick."""

    async def main() -> None:
        async with house(True) as one:
            ticks: list[float] = []
            one.node.on_tick.append(ticks.append)
            one.finish()
            async with asyncio.timeout(20):
                while len(ticks) < 3:  # noqa: ASYNC110 - counted in the server
                    await asyncio.sleep(0.01)
            stream = await one.open()
            stream.deadline_seconds = 5
            assert [block.type for block in await to_the_end(stream)] == ["finished"]

    run(main())
