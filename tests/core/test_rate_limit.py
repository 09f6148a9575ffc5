"""The rate limit that processes of a machine share."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
from pathlib import Path

import pytest
from support.builders import now, run

from gog.calls import rate_limit
from gog.calls.rate_limit import RateLimit
from gog.errors import Unwritable
from gog.spec import ToolsSpec
from gog.tool_client import Toolbox


def times_of(*limits: RateLimit, requests: int) -> list[float]:
    """When requests that all want to be sent at once are sent, through several processes' limits in turn."""

    async def scenario() -> list[float]:
        sent: list[float] = []

        async def send(limit: RateLimit) -> None:
            await limit.wait()
            sent.append(now())

        await asyncio.gather(*(send(limits[number % len(limits)]) for number in range(requests)))
        return sent

    return run(scenario())


def test_processes_that_share_a_file_share_the_rate(tmp_path: Path) -> None:
    limits = [RateLimit(60, tmp_path / "limits" / "textSearch", clock=now) for _ in range(2)]
    assert times_of(*limits, requests=6) == pytest.approx([0, 1, 2, 3, 4, 5])


def test_processes_without_a_file_do_not() -> None:
    assert times_of(RateLimit(60, clock=now), RateLimit(60, clock=now), requests=4) == [0, 0, 1, 1]


def test_nothing_waits_without_a_limit() -> None:
    assert times_of(RateLimit(None, clock=now), requests=100) == [0] * 100


def test_a_pause_allows_no_burst() -> None:
    async def scenario() -> list[float]:
        limit = RateLimit(60, clock=now)
        await asyncio.sleep(100)
        return [await limit.wait() for _ in range(3)]

    assert run(scenario()) == [0, 1, 1]


def test_a_clock_that_was_set_back_holds_no_request_for_long(tmp_path: Path) -> None:
    clock = [1_000_000.0]
    limit = RateLimit(60, tmp_path / "limit", clock=lambda: clock[0])
    assert limit.try_now() and not limit.try_now()
    clock[0] -= 3600
    assert limit.try_now() and not limit.try_now()


def test_a_damaged_file_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "limit").write_bytes(b"\xff")
    limit = RateLimit(60, tmp_path / "limit", clock=lambda: 1_000_000.0)
    assert [limit.try_now() for _ in range(2)] == [True, False]


@pytest.mark.parametrize(("number", "may_pass"), [(errno.ENOSPC, True), (errno.EIO, True), (errno.EACCES, False)])
def test_a_file_that_cannot_be_used_is_named_with_a_remedy(
    number: int, may_pass: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.pwrite", fail)
    with pytest.raises(Unwritable) as caught:
        run(RateLimit(60, tmp_path / "limit", clock=now).wait())
    assert caught.value.may_pass is may_pass and caught.value.where == str(tmp_path / "limit") and caught.value.remedy


def test_a_lock_that_another_process_holds_is_waited_for(tmp_path: Path) -> None:
    async def scenario() -> float:
        limit = RateLimit(60, tmp_path / "limit", clock=now)
        with (tmp_path / "limit").open("wb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            asyncio.get_running_loop().call_later(0.5, other.close)
            return await limit.wait()

    assert run(scenario()) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("environment", "rate"),
    [({}, 60), ({"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4"}, 60), ({"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "1"}, 15)],
)
def test_each_machine_has_an_equal_part(environment: dict[str, str], rate: float) -> None:
    assert rate_limit.for_machine(60, environment) == rate


def test_a_toolbox_limits_each_tool_by_its_own_rate(tmp_path: Path) -> None:
    async def scenario() -> dict[str, float]:
        tools = ToolsSpec(rate_per_minute=60, text_search={"rate_per_minute": 20})
        async with Toolbox({}, tools, shared=tmp_path) as toolbox:
            return {tool: path.rate.interval for tool, path in toolbox._paths.items()}

    assert asyncio.run(scenario()) == {"grounding": 1, "imageSearch": 1, "textSearch": 3, "judge": 0, "ocr": 1}
