"""Replicas behind a host name: one for each address, looked up again while turns are sampled."""

from __future__ import annotations

import asyncio

import pytest
from support.faulty_vllm import IMAGES, PROMPT, FaultyVLLM, served

from gog import tool_transport
from gog.spec import PolicyServerSpec
from gog.tool_types import CallError, FailureKind
from gog_recipes.rollout import vllm_names
from gog_recipes.rollout.vllm_fleet import Fleet
from gog_recipes.rollout.vllm_names import Names
from gog_recipes.rollout.vllm_replica import Replica


class Resolver:
    """Answers look-ups of host names."""

    def __init__(self, *addresses: str) -> None:
        self.addresses, self.asked = list(addresses), []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        if not self.addresses:
            raise OSError("no such name")
        return self.addresses


def replicas(url: str, resolver: Resolver) -> list[str]:
    return asyncio.run(Names([url], resolver).replicas())


def test_a_name_with_several_addresses_is_a_replica_for_each():
    found = replicas("http://policy-pods.research.svc:8080", Resolver("10.0.0.1", "10.0.0.2"))
    assert found == ["http://10.0.0.1:8080", "http://10.0.0.2:8080"]


@pytest.mark.parametrize(
    "url", ["http://10.0.0.9:8000", "https://vllm.example", "http://localhost:8000", "http://[::1]:8000"]
)
def test_an_address_and_a_name_with_a_certificate_stay_as_they_are(url):
    resolver = Resolver("10.0.0.1", "10.0.0.2")
    assert replicas(url, resolver) == [url] and resolver.asked == []


def test_a_name_with_one_address_or_none_stays_a_name():
    assert replicas("http://vllm:8000", Resolver("10.0.0.1")) == ["http://vllm:8000"]
    assert replicas("http://vllm:8000", Resolver()) == ["http://vllm:8000"]


def test_of_two_families_of_addresses_a_replica_counts_once():
    assert replicas("http://vllm:8000", Resolver("10.0.0.1", "fd00::1")) == ["http://vllm:8000"]
    assert replicas("http://vllm:8000", Resolver("fd00::1", "fd00::2")) == [
        "http://[fd00::1]:8000",
        "http://[fd00::2]:8000",
    ]


def test_a_name_that_had_several_addresses_is_looked_up_by_address_even_when_one_is_left():
    async def run():
        resolver = Resolver("10.0.0.1", "10.0.0.2")
        names = Names(["http://vllm:8000"], resolver)
        await names.replicas()
        resolver.addresses = ["10.0.0.2"]
        assert await names.replicas() == ["http://10.0.0.2:8000"]

    asyncio.run(run())


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Listed:
    """Names whose replicas a test sets."""

    def __init__(self, *urls: str) -> None:
        self.urls = list(urls)

    async def replicas(self) -> list[str]:
        return self.urls


def test_a_replaced_pod_is_taken_in_with_its_adapter_and_the_old_one_left_out():
    async def run():
        clock = Clock()
        async with FaultyVLLM() as old, FaultyVLLM() as new, tool_transport.open_session() as session:
            names = Listed(old.url)

            def join(url):
                return Replica(url, session, PolicyServerSpec(), base="base", check=admit)

            async def admit(replica):
                checked.append(replica.url)

            checked = []
            fleet = Fleet([join(old.url)], clock, names=names, join=join)
            home = fleet.home({})
            assert (await fleet.generate(home, served(), PROMPT, IMAGES, {})).value.replica.url == old.url
            names.urls = [new.url]
            assert (await fleet.generate(home, served(), PROMPT, IMAGES, {})).value.replica.url == old.url, "not yet"
            clock.now += vllm_names.LOOK_SECONDS
            assert (await fleet.generate(home, served(), PROMPT, IMAGES, {})).value.replica.url == new.url
            assert new.adapters == {served().name} and checked == [old.url, new.url]

    asyncio.run(run())


def test_a_pod_that_does_not_respond_yet_leaves_the_others_as_they_are():
    async def run():
        async with FaultyVLLM() as server, tool_transport.open_session() as session:

            def join(url):
                return Replica(url, session, PolicyServerSpec(), base="base", check=admit)

            async def admit(replica):
                if replica.url != server.url:
                    raise CallError(FailureKind.CONNECTION, "starting")

            known = join(server.url)
            fleet = Fleet([known], Clock(), names=Listed(server.url, "http://127.0.0.1:1"), join=join)
            assert (await fleet.generate(known, served(), PROMPT, IMAGES, {})).value is not None
            assert fleet.replicas == [known]

    asyncio.run(run())


def test_a_stage_that_starts_while_a_pod_is_replaced_finds_the_new_one():
    async def run():
        async with FaultyVLLM() as server, tool_transport.open_session() as session:

            def join(url):
                return Replica(url, session, PolicyServerSpec(), base="base")

            fleet = Fleet([join("http://127.0.0.1:1")], Clock(), names=Listed(server.url), join=join)
            assert (await fleet.require(served())).value

    asyncio.run(run())
