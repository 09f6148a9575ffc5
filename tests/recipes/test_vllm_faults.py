"""Faults of vLLM servers: what is tried again, elsewhere or later, and what ends the stage with a remedy."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque

import pytest
from support.faulty_vllm import IMAGES, MISSING, PROMPT, FaultyVLLM, error, served

from gog import tool_transport
from gog.engine import Limits
from gog.errors import NotFinite, UserError
from gog.spec import ModelSpec, PolicyServerSpec
from gog.tool_types import CallError, FailureKind
from gog_recipes.models import policy_model
from gog_recipes.rollout import vllm_check, vllm_replica
from gog_recipes.rollout import vllm_request as requests
from gog_recipes.rollout.vllm_fleet import Fleet
from gog_recipes.rollout.vllm_replica import LOAD, UNLOAD, Proof, Replica

GENERATE = requests.GENERATE
WRONG_PROMPT = [1, 9, 6, 6, 6, 8, 7]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@contextlib.asynccontextmanager
async def fleet_of(*servers, clock=None, **settings):
    """A fleet of servers, checked."""
    spec = PolicyServerSpec(**{"deadline_seconds": 20.0} | settings)
    async with tool_transport.open_session() as session:
        replicas = [Replica(server.url, session, spec, base="base") for server in servers]
        yield Fleet(replicas, clock or Clock())


def ask(fleet, home, weights=None):
    return fleet.generate(home, weights or served(), PROMPT, IMAGES, {"max_tokens": 4})


def paths(server):
    return [path for path, _ in server.calls]


def test_a_server_that_breaks_off_is_left_for_another_and_asked_last_for_a_while():
    async def run():
        clock = Clock()
        async with FaultyVLLM() as first, FaultyVLLM() as second, fleet_of(first, second, clock=clock) as fleet:
            await fleet.require(served())
            home = fleet.home({})
            assert home.url == first.url
            first.script[GENERATE] = deque([ConnectionError("dies")])
            sampled = await ask(fleet, home)
            assert sampled.value.replica.url == second.url and sampled.value.answer.tokens == [30]
            assert fleet.home({}).url == second.url, "new conversations avoid it"
            clock.now += 3.0
            assert fleet.home({}).url == first.url, "until it had time to recover"

    asyncio.run(run())


def test_a_turn_fails_only_when_every_replica_failed():
    async def run():
        async with FaultyVLLM() as server, fleet_of(server, server) as fleet:
            fleet.replicas[1].url = "http://127.0.0.1:1"
            await fleet.require(served())
            server.script[GENERATE] = deque([(500, error("EngineCore encountered an issue"), {})])
            reply = await ask(fleet, fleet.replicas[0])
            assert reply.value is None and reply.failure.kind is FailureKind.CONNECTION
            assert (await ask(fleet, fleet.replicas[0])).value is not None

    asyncio.run(run())


def test_a_host_that_accepts_no_connection_fails_a_call_long_before_its_deadline(monkeypatch):
    monkeypatch.setattr(vllm_replica, "CONNECT_SECONDS", 0.2)

    async def run():
        with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
            address = full.getsockname()
            waiting = [socket.socket() for _ in range(4)]
            for each in waiting:  # they fill the queue, so that the kernel answers no further ones
                each.setblocking(False)
                each.connect_ex(address)
            async with tool_transport.open_session(0.2) as session:
                replica = Replica(f"http://127.0.0.1:{address[1]}", session, PolicyServerSpec(), base="base")
                await asyncio.wait_for(replica.require(served()), 10)

    with pytest.raises(CallError, match=r"no connection within 0.2 s") as caught:
        asyncio.run(run())
    assert caught.value.kind is FailureKind.CONNECTION


def test_an_adapter_is_loaded_without_waiting_for_a_replica_that_failed_which_gets_it_before_it_samples():
    async def run():
        clock = Clock()
        async with FaultyVLLM() as first, FaultyVLLM() as second, fleet_of(first, second, clock=clock) as fleet:
            await fleet.require(served())
            first.script[GENERATE] = deque([ConnectionError("dies")])
            await ask(fleet, fleet.replicas[0])
            first.script[LOAD] = deque([asyncio.Event()])  # it hangs
            newer = served("run-grpo-2-abc")
            assert (await asyncio.wait_for(fleet.require(newer), 5)).value
            first.script.clear()
            clock.now += 3.0
            assert (await ask(fleet, fleet.replicas[0], newer)).value.replica.url == first.url
            assert newer.name in first.adapters

    asyncio.run(run())


def test_a_server_that_asks_for_patience_names_the_time_and_stays_trusted():
    async def run():
        async with FaultyVLLM() as server, fleet_of(server) as fleet:
            await fleet.require(served())
            server.script[GENERATE] = deque([(429, error("too many"), {"retry-after": "7"})])
            reply = await ask(fleet, fleet.replicas[0])
            assert (reply.failure.kind, reply.failure.retry_after) == (FailureKind.RATE_LIMITED, 7.0)
            assert not fleet._is_suspect(fleet.replicas[0])

    asyncio.run(run())


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (1.0, FailureKind.TIMEOUT),
        ((200, "<html>", {}), FailureKind.MALFORMED),
        ((200, {"choices": []}, {}), FailureKind.MALFORMED),
        ((503, MISSING, {}), FailureKind.SERVER_ERROR),
    ],
)
def test_what_passes_by_itself_is_a_failure_of_the_service(step, kind):
    async def run():
        async with FaultyVLLM() as server, fleet_of(server, deadline_seconds=0.3) as fleet:
            await fleet.require(served())
            server.script[GENERATE] = deque([step])
            return (await ask(fleet, fleet.replicas[0])).failure.kind

    assert asyncio.run(run()) is kind


def test_a_restarted_server_is_given_its_adapter_again_and_verified_before_it_samples():
    async def run():
        async with FaultyVLLM() as server, fleet_of(server) as fleet:
            await fleet.require(served())
            server.adapters.clear()
            server.calls.clear()
            sampled = await ask(fleet, fleet.replicas[0])
            assert sampled.value.answer.tokens == [30] and server.adapters == {served().name}
            return paths(server)

    assert asyncio.run(run()) == [GENERATE, LOAD, GENERATE, GENERATE]


@pytest.mark.parametrize("name", ["run-grpo-1-abc", ""])
def test_a_server_that_broke_off_is_checked_and_verified_again_before_it_samples(name):
    async def run():
        checked = []

        async def check(replica):
            checked.append(len(server.calls))

        async with FaultyVLLM() as server, fleet_of(server) as fleet:
            fleet.replicas[0].check = check
            await fleet.require(served(name))
            server.script[GENERATE] = deque([ConnectionError("dies")])
            assert (await ask(fleet, fleet.replicas[0], served(name))).failure is not None
            broken = len(server.calls)
            assert (await ask(fleet, fleet.replicas[0], served(name))).value is not None
            assert checked == [0, broken] and paths(server)[broken:].count(GENERATE) == 2
            server.script[GENERATE] = deque([ConnectionError("dies")])
            await ask(fleet, fleet.replicas[0], served(name))
            await ask(fleet, fleet.replicas[0], served(name, logprob=-0.5))  # another base came back

    with pytest.raises(UserError, match=r"differ from the trainer's by 0.5 nats"):
        asyncio.run(run())


def test_turns_that_wait_for_the_check_of_a_server_share_its_failure():
    async def run():
        checked = []

        async def check(replica):
            checked.append(replica)
            await asyncio.sleep(0.05)
            raise CallError(FailureKind.CONNECTION, "no connection")

        async with FaultyVLLM() as server, fleet_of(server) as fleet:
            fleet.replicas[0].check = check
            await asyncio.gather(*(ask(fleet, fleet.replicas[0]) for _ in range(8)))
            assert len(checked) == 1

    asyncio.run(run())


def test_a_proof_is_loaded_verified_and_unloaded_before_the_first_adapter_and_after_a_restart():
    async def run():
        async with FaultyVLLM() as server, fleet_of(server) as fleet:
            fleet.replicas[0].proofs = [Proof("attention", served("proof"))]
            await fleet.require(served())
            once = paths(server)
            await fleet.require(served("run-grpo-2-abc"))
            again = paths(server)[len(once) :]
            server.adapters.clear()
            server.calls.clear()
            await ask(fleet, fleet.replicas[0])
            return once, again, paths(server)

    once, again, restarted = asyncio.run(run())
    assert once == [LOAD, GENERATE, UNLOAD, LOAD, GENERATE] and again == [LOAD, GENERATE]
    assert restarted == [GENERATE, *once, GENERATE]


def test_a_server_that_ignores_adapters_of_a_kind_is_refused_by_its_name():
    async def run():
        async with FaultyVLLM() as server, fleet_of(server) as fleet:
            fleet.replicas[0].proofs = [
                Proof("attention", served("one")),
                Proof("experts", served("two", logprob=-1.0)),
            ]
            try:
                await fleet.require(served())
            finally:
                assert not server.adapters

    with pytest.raises(UserError, match=r"does not apply adapters of experts: .* by 1 nats .*engine: transformers"):
        asyncio.run(run())


def test_an_adapter_that_another_rank_loaded_is_used_and_unloaded_and_one_that_is_not_there_is_unloaded_silently():
    async def run():
        async with FaultyVLLM() as server, fleet_of(server) as fleet:
            server.adapters.add(served().name)
            server.script[LOAD] = deque([(400, error("The lora adapter 'x' has already been loaded."), {})])
            await fleet.require(served())
            fleet.replicas[0].loaded.clear()  # as on a rank that sampled elsewhere
            await fleet.unload(served())
            assert not server.adapters
            await fleet.unload(served())

    asyncio.run(run())


def test_replicas_may_be_replaced_while_an_adapter_is_loaded_and_a_failure_is_that_of_the_one_that_failed():
    async def run():
        may_load = asyncio.Event()
        async with FaultyVLLM() as gone, FaultyVLLM() as stays, fleet_of(gone, stays) as fleet:
            gone.script[LOAD] = deque([may_load])
            stays.script[LOAD] = deque([may_load])
            loading = asyncio.create_task(fleet.require(served()))
            while not gone.in_flight or not stays.in_flight:
                await asyncio.sleep(0.01)
            gone.script[GENERATE] = deque([(503, MISSING, {})])  # its proof, once the adapter is loaded
            fleet.replicas = fleet.replicas[1:]  # as a turn does that looks names up
            may_load.set()
            assert (await loading).value and not fleet._is_suspect(fleet.replicas[0])

    asyncio.run(run())


def test_weights_that_compute_something_else_are_refused():
    async def run():
        async with FaultyVLLM() as server, fleet_of(server) as fleet:
            await fleet.require(served(logprob=-0.5))

    with pytest.raises(UserError, match=r"differ from the trainer's by 0.5 nats .*--dtype float32"):
        asyncio.run(run())


@pytest.mark.parametrize(
    ("path", "response", "words"),
    [
        (LOAD, (404, MISSING, {}), r"VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"),
        (LOAD, (500, error("Call to add_lora method failed: LoRA is not enabled."), {}), r"--enable-lora"),
        (LOAD, (500, error("LoRA rank 128 is greater than max_lora_rank 16."), {}), r"larger --max-lora-rank"),
        (LOAD, (404, error("Loading lora n failed: No adapter found for /x"), {}), r"tools.policyServer.adapters"),
        (GENERATE, (404, MISSING, {}), r"--enable-scale-out"),
        (GENERATE, (400, error("temperature must be in [0, 2]"), {}), r"refused a request: .*temperature must be"),
    ],
)
def test_what_waiting_does_not_change_ends_the_stage_with_the_remedy(path, response, words):
    async def run():
        async with FaultyVLLM() as server, fleet_of(server) as fleet:
            server.script[path] = deque([response])
            await fleet.require(served())

    with pytest.raises(UserError, match=words):
        asyncio.run(run())


def test_a_server_that_expands_a_prompt_otherwise_ends_the_stage():
    async def run():
        async with FaultyVLLM() as server, fleet_of(server) as fleet:
            await fleet.require(served())
            server.expanded = WRONG_PROMPT
            await ask(fleet, fleet.replicas[0])

    with pytest.raises(requests.PromptDiffers, match=r"of 7 tokens, of 6 here"):
        asyncio.run(run())


def test_a_server_whose_log_probs_are_not_finite_ends_the_stage_by_its_name():
    async def run():
        async with FaultyVLLM() as server, fleet_of(server) as fleet:
            await fleet.require(served())
            server.logprob = -9999.0
            await ask(fleet, fleet.replicas[0])

    with pytest.raises(
        NotFinite, match=r"endpoints.policy: http://\S+ samples tokens with a log-prob that is not finite"
    ):
        asyncio.run(run())


def test_turns_in_flight_on_a_replica_are_bounded():
    async def run():
        async with FaultyVLLM() as server, fleet_of(server, concurrency=3) as fleet:
            await fleet.require(served())
            server.script[GENERATE] = deque([0.2] * 12)
            await asyncio.gather(*(ask(fleet, fleet.replicas[0]) for _ in range(12)))
            return server.most

    assert asyncio.run(run()) == 3


@pytest.fixture(scope="module")
def processor():
    return policy_model.load_processor(ModelSpec(base="tiny"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, ""),
        ({"length": 100}, r"up to 100 tokens, the stage's have up to 192 \(start vLLM with --max-model-len 192"),
        ({"processed": False}, r"another distribution .*--logprobs-mode processed_logprobs"),
        ({"script": {GENERATE: deque([(404, MISSING, {})])}}, r"start vLLM 0.32 with --enable-scale-out"),
        ({"script": {UNLOAD: deque([(404, MISSING, {})])}}, r"--enable-lora, and with VLLM_ALLOW_RUNTIME_LORA"),
        ({"script": {"/v1/models": deque([(200, "<html>", {})])}}, r"does not answer as vLLM does"),
        ({"script": {"/v1/models": deque([(404, MISSING, {})])}}, r"does not answer as vLLM does"),
        ({"script": {"/v1/models": deque([(401, {"error": "Unauthorized"}, {})])}}, r"set POLICY_GOG_API_KEY"),
        ({"script": {"/tokenize": deque([(200, {"tokens": [1, 2]}, {})])}}, r"tokenizer of .* is another"),
    ],
)
def test_a_server_without_a_needed_option_is_refused_at_the_start_with_that_option(processor, change, words):
    async def run():
        async with FaultyVLLM() as server, fleet_of(server) as fleet:
            vars(server).update(change)
            await vllm_check.check(fleet.replicas[0], processor, Limits(192, 14, 1.0), adapters=True)

    if not words:
        return asyncio.run(run())
    with pytest.raises(UserError, match=words):
        asyncio.run(run())
    return None


def test_a_server_that_its_first_request_kills_is_refused_for_a_model_with_experts_and_waited_for_otherwise(processor):
    async def run(experts):
        async with FaultyVLLM() as server, fleet_of(server) as fleet:
            server.script[GENERATE] = deque([(500, error("EngineCore encountered an issue. See stack trace"), {})])
            await vllm_check.check(fleet.replicas[0], processor, Limits(192, 14, 1.0), adapters=True, experts=experts)

    with pytest.raises(UserError, match=r"died of its first request, .* with adapters of experts \(serve on GPUs"):
        asyncio.run(run(True))
    with pytest.raises(CallError, match="EngineCore"):
        asyncio.run(run(False))


def test_a_temperature_that_vllm_does_not_take_is_refused(processor):
    async def run():
        async with FaultyVLLM() as server, fleet_of(server) as fleet:
            await vllm_check.check(fleet.replicas[0], processor, Limits(192, 14, 2.5), adapters=True)

    with pytest.raises(UserError, match="temperatures up to 2"):
        asyncio.run(run())
