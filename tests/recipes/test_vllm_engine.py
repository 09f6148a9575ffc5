"""The vLLM engine without a server: what it leaves for servers, and how it waits for them."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from peft import PeftModel
from support.faulty_vllm import FaultyVLLM, error
from support.vllm_servers import CPU, Policy, image

from gog import prompts
from gog.engine import Limits
from gog.errors import QuestionSkipped, ServiceDown, UserError
from gog.spec import ModelSpec, OutageSpec
from gog_recipes.models import lora, policy_model
from gog_recipes.rollout import vllm_proof, vllm_weights
from gog_recipes.rollout import vllm_request as requests
from gog_recipes.rollout.vllm_replica import LOAD, UNLOAD
from gog_recipes.runtime.interruption import Interruption
from gog_recipes.runtime.ranks import SINGLE, Ranks

LIMITS = Limits(400, 24, 1.0)
SPEC = ModelSpec(base="tiny")


class Nowhere:
    """A server that does not run."""

    url = "http://127.0.0.1:1"


@pytest.fixture
def policy(tmp_path):
    return Policy(SPEC, tmp_path)


def served(policy, version=1):
    probe = vllm_weights.probe(policy.model, policy.processor, policy.vision)
    folder = policy.folder / "adapters"
    return vllm_weights.serve(policy.model, policy.saved, version, "run-grpo", folder, SINGLE, probe)


def test_a_version_is_one_adapter_on_the_plain_base_that_computes_what_the_trainer_computes(policy) -> None:
    policy.train(2)
    made = served(policy)
    plain = policy_model.load_base(SPEC, CPU)
    model = PeftModel.from_pretrained(plain, made.folder).eval()
    again = vllm_weights.probe(model, policy.processor, policy_model.vision_of(model, policy.processor))
    assert np.abs(again.logprobs - made.probe.logprobs).max() < 1e-4
    with model.disable_adapter():
        base = vllm_weights.probe(model, policy.processor, policy_model.vision_of(model, policy.processor))
    assert np.abs(base.logprobs - made.probe.logprobs).mean() > 10 * vllm_weights.EXACT, "the probe tells them apart"


def test_proofs_in_bfloat16_tell_a_server_that_ignores_one_kind_of_adapters_from_one_that_applies_it(tmp_path) -> None:
    """PEFT takes the place of the server: what it computes with a proof's adapter is what the proof expects."""
    policy = Policy(SPEC.model_copy(update={"dtype": "bfloat16"}), tmp_path)
    policy.train(2)

    def probe(model):
        return vllm_weights.probe(model, policy.processor, policy.vision)

    weights = served(policy)
    before = probe(policy.model).logprobs
    made = vllm_proof.make(policy.model, weights, probe, SINGLE)
    assert [proof.kind for proof in made] == ["attention", "MLPs or experts"]
    assert np.array_equal(probe(policy.model).logprobs, before), "the policy is as it was"
    plain = policy_model.load_base(policy.spec, CPU)
    base = probe(plain).logprobs
    for proof in made:
        model = lora.with_saved(policy_model.load_base(policy.spec, CPU), [Path(proof.served.folder)])
        expected, tolerance = proof.served.probe.logprobs, proof.served.probe.tolerance
        assert np.abs(probe(model).logprobs - expected).mean() < 0.2 * tolerance
        assert np.abs(base - expected).mean() > vllm_proof.EFFECT


def test_in_float32_and_without_adapters_there_is_nothing_to_prove(policy) -> None:
    policy.train(2)
    assert vllm_proof.make(policy.model, served(policy), pytest.fail, SINGLE) == ()


def test_a_model_that_takes_images_of_one_size_only_is_probed_with_a_square(policy) -> None:
    spec = SPEC.model_copy(update={"min_pixels": 12544, "max_pixels": 12544})
    processor = policy_model.load_processor(spec)
    found = vllm_weights.probe(policy.model, processor, policy_model.vision_of(policy.model, processor))
    assert [count for _, count in found.prompt.spans] == [16]


def test_other_weights_have_another_name_and_equal_ones_the_same(policy) -> None:
    policy.train(2)
    first, again = served(policy), served(policy)
    policy.train(3)
    other = served(policy)
    assert first.name == again.name != other.name
    assert first.name.startswith("run-grpo-1-") and first.folder.endswith(first.name)


def test_a_policy_without_adapters_is_the_base_model_itself(policy) -> None:
    base = policy_model.load_base(SPEC, CPU)
    probe = vllm_weights.probe(base, policy.processor, policy.vision)
    made = vllm_weights.serve(base, [], 0, "run-evaluate", policy.folder, SINGLE, probe)
    assert (made.name, made.folder) == ("", "")


@contextlib.asynccontextmanager
async def engine_of(policy, monkeypatch, *servers):
    """An engine of servers that compute what the policy computes, whatever its weights, and whose turns end at once."""
    engine = policy.engine(servers, LIMITS, backoff=0.0)
    monkeypatch.setattr(engine, "_probe", lambda _, probe=engine._versions.current.probe: probe)
    for server in servers:
        server.serve(engine._versions.current.probe)
        server.token = policy.processor.turn_end
    yield engine
    await engine.close()


def turns(server):
    """Requests for turns that a server got, as (adapter, seed)."""
    bodies = [body for path, body in server.calls if path == requests.GENERATE and "seed" in body["sampling_params"]]
    return [(body["model"], body["sampling_params"]["seed"]) for body in bodies]


def test_a_turn_under_way_ends_on_the_version_that_it_began_with_which_is_then_unloaded(policy, monkeypatch) -> None:
    async def run():
        async with FaultyVLLM() as server, engine_of(policy, monkeypatch, server) as engine:
            [session] = await engine.open("a b", [], [(1,)])
            old, may_end = set(server.adapters), asyncio.Event()
            server.script[requests.GENERATE] = deque([may_end])
            turn = asyncio.create_task(session.generate())
            while not server.in_flight:
                await asyncio.sleep(0.01)
            policy.train(3)
            await engine.switch(policy.model, 1)
            during = set(server.adapters)
            may_end.set()
            await turn
            after = set(server.adapters)
            session.observe(await session.encode("c", []))
            await session.generate()
            session.close()
            versions = [segment.version for segment in session.segments() if segment.source == "model"]
            return old, during, after, versions, [model for model, _ in turns(server)]

    old, during, after, versions, models = asyncio.run(run())
    assert len(old) == 1 and len(during) == 2 and old < during and after == during - old
    assert versions == [0, 1] and [{model} for model in models] == [old, after]


def test_what_an_earlier_attempt_left_on_servers_and_in_the_folder_is_removed_and_nothing_else(
    policy, monkeypatch
) -> None:
    left = ["run-grpo-3-0123456789ab", "run-grpo-0-0123456789ab-self_attn-16"]
    others = ["run-grpo-2-4-0123456789ab", "other-grpo-3-0123456789ab", "run-grpo-mine"]
    folder = policy.folder / "work" / "adapters"
    for name in [*left, *others, ".writing-run-grpo-3-0123456789ab.q_8zz3x1"]:
        (folder / name).mkdir(parents=True)

    async def run():
        async with FaultyVLLM() as first, FaultyVLLM() as second:
            for server in (first, second):
                server.adapters.update([*left, *others])
            async with engine_of(policy, monkeypatch, first, second) as engine:
                [session] = await engine.open("a b", [], [(1,)])
                session.close()
                own = {engine._versions.current.name}
                return first.adapters - own, second.adapters - own, {path.name for path in folder.iterdir()} - own

    assert asyncio.run(run()) == (set(others), set(others), set(others))


@dataclass(frozen=True)
class FirstOfTwo(Ranks):
    """The first of two ranks; the second one has other turns under way."""

    size: int = 2
    theirs: set[str] = field(default_factory=set)
    """Names of the versions that the second rank samples from."""

    def gather(self, item):
        return [item, self.theirs if isinstance(item, set) else item]


def test_a_version_that_another_rank_samples_from_stays_loaded_with_its_files_until_a_switch_finds_it_unused(
    policy, monkeypatch
) -> None:
    async def run():
        async with FaultyVLLM() as server, engine_of(policy, monkeypatch, server) as engine:
            ranks = FirstOfTwo()
            engine._ranks = engine._versions._ranks = ranks
            [session] = await engine.open("a b", [], [(1,)])
            session.close()
            first = engine._versions.current
            ranks.theirs.add(first.name)
            kept = []
            for version in (1, 2):
                policy.train(3 + version)
                await engine.switch(policy.model, version)
                has_files = await asyncio.to_thread(Path(first.folder).is_dir)
                kept.append((first.name in server.adapters, has_files, len(server.adapters)))
                ranks.theirs.clear()
            return kept

    assert asyncio.run(run()) == [(True, True, 2), (False, False, 1)]


def test_a_turn_whose_replica_breaks_off_is_sampled_elsewhere_with_its_noise_and_the_conversation_stays_there(
    policy, monkeypatch
) -> None:
    async def run():
        async with (
            FaultyVLLM() as first,
            FaultyVLLM() as second,
            engine_of(policy, monkeypatch, first, second) as engine,
        ):
            [session] = await engine.open("a b", [], [(1,)])
            first.script[requests.GENERATE] = deque([ConnectionError("dies")])
            await session.generate()
            engine._fleet._trust.clear()  # as after some time
            session.observe(await session.encode("c", []))
            await session.generate()
            session.close()
            return turns(first), turns(second)

    [broken], [again, following] = asyncio.run(run())
    assert broken == again != following


def test_a_server_that_asks_for_patience_is_asked_again_after_that_time_with_the_same_noise(
    policy, monkeypatch
) -> None:
    async def run():
        async with FaultyVLLM() as server, engine_of(policy, monkeypatch, server) as engine:
            [session] = await engine.open("a b", [], [(1,)])
            server.script[requests.GENERATE] = deque([(429, error("too many requests"), {"retry-after": "1"})])
            begun = asyncio.get_running_loop().time()
            await session.generate()
            session.close()
            return asyncio.get_running_loop().time() - begun, turns(server)

    seconds, [refused, again] = asyncio.run(run())
    assert seconds >= 1 and refused == again and policy.waits == []


def test_a_turn_at_which_the_server_fails_while_it_samples_others_skips_its_question(policy, monkeypatch) -> None:
    async def run():
        async with FaultyVLLM() as server, engine_of(policy, monkeypatch, server) as engine:
            faulty, other = await engine.open("a b", [], [(1,), (2,)])
            server.fails_at = requests.noise((1,), (0, 0))
            failing = asyncio.create_task(faulty.generate())
            deadline = asyncio.get_running_loop().time() + 60
            while not failing.done() and asyncio.get_running_loop().time() < deadline:
                await other.generate()
            faulty.close()
            other.close()
            with pytest.raises(QuestionSkipped, match=r"endpoints.policy: .* fails at it, 10 times .*no such kernel"):
                await asyncio.wait_for(failing, 1)

    asyncio.run(run())


def test_a_turn_that_is_the_last_one_left_and_kills_its_server_each_time_skips_its_question(
    policy, monkeypatch
) -> None:
    async def run():
        async with FaultyVLLM() as server, engine_of(policy, monkeypatch, server) as engine:
            engine._stage.watch().spec = OutageSpec(patience_seconds=3.0)
            [session] = await engine.open("a b", [], [(1,)])
            server.kills = requests.noise((1,), (0, 0))
            with pytest.raises(QuestionSkipped, match=r"endpoints.policy: .* fails at it, 10 times"):
                await session.generate()
            session.close()
            return len(turns(server))

    assert asyncio.run(run()) == 10


@pytest.mark.parametrize("path", [LOAD, UNLOAD])
def test_a_stage_that_is_asked_to_end_does_not_wait_for_a_server_that_hangs_while_it_switches(
    policy, monkeypatch, path
) -> None:
    async def run():
        async with FaultyVLLM() as server, engine_of(policy, monkeypatch, server) as engine:
            interruption = engine._stage.interruption = Interruption()
            [session] = await engine.open("a b", [], [(1,)])
            session.close()
            server.script[path] = deque([asyncio.Event()])
            policy.train(3)
            switching = asyncio.create_task(engine.switch(policy.model, 1))
            while not server.in_flight:
                await asyncio.sleep(0.01)
            interruption.request()
            await asyncio.wait_for(switching, 10)
            return engine.version

    assert asyncio.run(run()) == 1


def test_a_stage_starts_with_the_servers_that_respond(policy, monkeypatch) -> None:
    async def run():
        async with FaultyVLLM() as server:
            engine = policy.engine([Nowhere, server], LIMITS, patience=0.0, backoff=0.0)
            server.serve(engine._versions.current.probe)
            server.token = policy.processor.turn_end
            [session] = await engine.open("a b", [], [(1,)])
            await session.generate()
            session.close()
            await engine.close()
            return len(turns(server))

    assert asyncio.run(run()) == 1


def test_servers_that_stay_down_end_the_attempt_after_the_stage_s_patience(policy) -> None:
    async def run():
        engine = policy.engine([Nowhere], LIMITS, patience=0.0, backoff=0.0)
        await engine.open(prompts.prompt("What?", style=engine.style), [image(1)], [(1,)])

    with pytest.raises(ServiceDown, match=r"policy: down for .* connection: http://127.0.0.1:1: ClientConnectorError"):
        asyncio.run(run())


def test_a_stage_whose_results_must_repeat_bit_for_bit_is_refused(policy) -> None:
    with pytest.raises(UserError, match=r"deterministic: vLLM repeats no result bit for bit \(remove it, or"):
        policy.engine([Nowhere], LIMITS, deterministic=True)


def test_a_stage_that_names_no_server_is_refused(policy) -> None:
    with pytest.raises(UserError, match=r"engine vllm needs a server \(set endpoints.policy: \{url: …\} or"):
        policy.engine([], LIMITS)
