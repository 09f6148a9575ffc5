"""Memory of a client of hostile servers, over many responses."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import resource
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from gog_tools.fetch import guard, reader, summaries, vendor
from gog_tools.search import engines, lens
from gog_tools.serving import errors

WARM_UP, AT_ONCE = 200, 24
ALLOWED = 50 << 20


@pytest.fixture
def port():
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    server = subprocess.Popen(
        [sys.executable, "-m", "support.hostile_server"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert server.stdout is not None
    yield int(server.stdout.readline())
    server.kill()
    server.communicate()


def peak() -> int:
    """Bytes of this process's memory at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


async def use(client: guard.Guard, number: int, url: str, pages: reader.OwnReader, api: vendor.Api) -> str:
    """What becomes of one response as a page, as an answer of a vendor, or as a thumbnail."""
    spending = vendor.Spending()
    try:
        if number % 3 == 0:
            page = await pages.read(client, url, spending)
            await summaries.Extractive().summarise(client, "answer to the question", page.title, page.text, spending)
        elif number % 3 == 1:
            answer = await api.ask(client, "GET", spending)
            engines.serpapi_status(answer)
            engines.items(answer, "organic_results")
        else:
            answer = await client.page(url, guard.Limits(1_000_000, 10.0, lens.IMAGE_TYPES))
            assert await asyncio.to_thread(lens.thumbnail, answer.body, 224) == ""
    except (reader.Unreadable, errors.RequestError, guard.Blocked, guard.Unreachable) as error:
        return type(error).__name__
    return "read"


def run(port: int, count: int) -> Counter[str]:
    url = f"http://127.0.0.1:{port}/"
    rules = guard.Rules((ipaddress.ip_network("127.0.0.1/32"),), (), frozenset({port}))
    outcomes: Counter[str] = Counter()

    async def scenario() -> None:
        pages, api, slots = reader.OwnReader(), vendor.Api("v", url, seconds=10.0), asyncio.Semaphore(AT_ONCE)

        async def one(number: int) -> None:
            async with slots:
                outcomes[await use(client, number, url, pages, api)] += 1

        async with guard.Guard(rules, environment={}) as client:
            await asyncio.gather(*map(one, range(count)))

    asyncio.run(scenario())
    return outcomes


@pytest.mark.parametrize(
    "responses", [pytest.param(1_500, marks=pytest.mark.slow), pytest.param(10_000, marks=pytest.mark.exhaustive)]
)
def test_hostile_responses_take_less_than_fifty_mebibytes(port, responses):
    run(port, WARM_UP)
    before = peak()
    outcomes = run(port, responses)
    assert outcomes.total() == responses
    grown = peak() - before
    print(f"{responses:,} responses, +{grown / 2**20:.1f} MiB: {dict(outcomes)}")
    assert grown <= ALLOWED
