"""The vLLM engine against real vLLM servers: what they sample is what the trainer would compute, through their deaths."""

from __future__ import annotations

import asyncio
import json
import threading
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.vllm_servers import Server, image, play, sampled

from gog import adapters as adapter_files
from gog import prompts
from gog.engine import Limits
from gog.errors import UserError
from gog.spec import ModelSpec
from gog_recipes.rollout.vllm_request import PromptDiffers

pytestmark = pytest.mark.vllm
EXACT = 1e-4
"""Nats, float32."""
ROUNDED = 0.05
"""Mean over tokens in nats, of a trainer in bfloat16."""
LIMITS = Limits(400, 24, 1.0)


def adapters(server: Server) -> list[str]:
    """Names of the adapters that a server has loaded."""
    with urllib.request.urlopen(f"{server.url}/v1/models") as answer:
        return [each["id"] for each in json.load(answer)["data"] if each["parent"]]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_are_the_trainer_s_over_turns_and_images_of_different_sizes(replicas, policy, temperature) -> None:
    policy.train(2)

    async def run():
        engine = policy.engine(replicas, Limits(400, 24, temperature))
        played = await play(engine)
        await engine.close()
        return played

    for segments in asyncio.run(run()):
        assert sum(len(segment.images) for segment in segments) == 5
        assert np.abs(sampled(segments) - policy.logprobs(segments, temperature)).max() < EXACT
        written = {token for segment in segments if segment.source == "model" for token in segment.tokens}
        assert not written & set(policy.processor.suppress_tokens)
        ends = [
            policy.processor.ends_turn(s.tokens[:n])
            for s in segments
            if s.source == "model"
            for n in range(1, len(s.tokens))
        ]
        assert not any(ends), "a turn continues after its end"


def test_a_repeated_rollout_repeats_its_tokens_and_a_resumed_one_continues_it(replicas, policy) -> None:
    async def run():
        engine = policy.engine(replicas, LIMITS)
        first, again = await play(engine), await play(engine)
        shown = [image(1, 112, 90), image(0, 28, 28), image(5, 60, 47), image(1, 28, 28), image(6, 67, 47)]
        text = prompts.prompt("What is this?", style=engine.style)
        [resumed] = await engine.open(text, shown, [(7, 1, 3, 0)], resume=[first[0][:5]])
        await resumed.generate()
        resumed.close()
        await engine.close()
        return first, again, resumed.segments()

    first, again, resumed = asyncio.run(run())
    assert [[s.tokens for s in segments] for segments in first] == [[s.tokens for s in segments] for segments in again]
    assert len({segments[1].tokens for segments in first}) > 1
    assert resumed[-1].tokens == first[0][-1].tokens


def test_adapters_are_applied_and_switched_between_turns_on_every_replica(replicas, policy) -> None:
    policy.train(2)
    seen = []

    async def run():
        engine = policy.engine(replicas, LIMITS)

        async def before(turn):
            if turn == 1:
                seen.append([adapters(each) for each in replicas])
                policy.train(3)
                await engine.switch(policy.model, 1)
                seen.append([adapters(each) for each in replicas])

        [segments] = await play(engine, count=1, turns=2, before=before)
        await engine.close()
        return segments

    segments = asyncio.run(run())
    turns = [segment for segment in segments if segment.source == "model"]
    assert [turn.version for turn in turns] == [0, 1]
    second = policy.logprobs(segments)[len(turns[0].tokens) :]
    assert np.abs(second - turns[1].logprobs).max() < EXACT
    policy.train(2)
    assert np.abs(policy.logprobs(segments)[: len(turns[0].tokens)] - turns[0].logprobs).max() < EXACT
    assert np.abs(policy.logprobs(segments)[len(turns[0].tokens) :] - turns[1].logprobs).max() > 100 * EXACT
    (old, *_), (new, other) = seen
    assert len(old) == len(new) == 1 and new == other and old != new
    assert [adapters(each) for each in replicas] == [[], []]


def test_an_adapter_that_a_server_does_not_apply_is_noticed(replicas, policy, monkeypatch) -> None:
    """Another file under the adapter's name, as after a mistake with shared folders."""
    policy.train(2)

    async def run():
        engine = policy.engine(replicas, LIMITS)
        folder = Path(engine._versions.current.folder)
        other = policy.saved[0] / "adapter_model.safetensors"
        (folder / "adapter_model.safetensors").write_bytes(other.read_bytes())
        (folder / "adapter_config.json").write_bytes((policy.saved[0] / "adapter_config.json").read_bytes())
        await play(engine)

    with pytest.raises(UserError, match="differ from the trainer's by"):
        asyncio.run(run())


@pytest.mark.parametrize(("number", "kind"), [(0, "attention"), (1, "MLPs or experts")])
def test_a_server_that_ignores_adapters_of_a_kind_is_noticed_in_bfloat16(
    replicas, wide, policy_of, number, kind
) -> None:
    policy = policy_of(ModelSpec(base=str(wide), family="tiny", dtype="bfloat16"))
    policy.train(2)

    async def run(ignore):
        engine = policy.engine(replicas[:1], LIMITS)
        if ignore:
            path = Path(engine._proofs[number].served.folder) / adapter_files.WEIGHTS
            save_file({name: torch.zeros_like(value) for name, value in load_file(path).items()}, path)
        played = await play(engine, count=1)
        await engine.close()
        return played

    [segments] = asyncio.run(run(False))
    assert np.abs(sampled(segments) - policy.logprobs(segments)).mean() < ROUNDED
    with pytest.raises(UserError, match=f"does not apply adapters of {kind}"):
        asyncio.run(run(True))


def test_a_server_that_cuts_images_otherwise_is_refused_at_the_first_call(replicas, wide, policy_of, tmp_path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    for path in wide.iterdir():
        (folder / path.name).hardlink_to(path)
    settings = json.loads((wide / "preprocessor_config.json").read_text())
    settings["size"]["longest_edge"] *= 4
    (folder / "preprocessor_config.json").unlink()
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    policy = policy_of(ModelSpec(base=str(folder), family="tiny"))

    async def run():
        engine = policy.engine(replicas, LIMITS)
        text = prompts.prompt("What is this?", style=engine.style)
        [session] = await engine.open(text, [image(1, 224, 224)], [(1,)])
        await session.generate()

    with pytest.raises(PromptDiffers, match=r"image 1 of a prompt is 16 tokens at .* on the server, 64 tokens"):
        asyncio.run(run())


def test_a_replica_killed_in_mid_episode_costs_nothing_and_serves_again_after_its_restart(replicas, policy) -> None:
    """First one of two is killed, whose conversations move; then both, which the stage waits for."""
    policy.train(2)
    first, second = replicas

    async def run():
        engine = policy.engine(replicas, LIMITS)
        undisturbed = await play(engine)
        pending = [lambda: second.kill()]

        async def kill_second(turn):
            if turn == 1 and pending:
                pending.pop()()

        moved = await play(engine, before=kill_second)
        pending.append(lambda: (first.kill(), threading.Thread(target=first.start).start()))
        waited = await play(engine, before=kill_second)
        await asyncio.to_thread(second.start)
        await asyncio.to_thread(first.wait)
        await asyncio.to_thread(second.wait)
        policy.train(4)
        await engine.switch(policy.model, 1)
        loaded = [adapters(each) for each in replicas]
        again = await play(engine)
        await engine.close()
        return undisturbed, moved, waited, again, loaded

    undisturbed, moved, waited, again, loaded = asyncio.run(run())
    texts = [[[segment.tokens for segment in segments] for segments in group] for group in (undisturbed, moved, waited)]
    assert texts[0] == texts[1] == texts[2]
    assert [each is None for each in policy.waits] == [False, True], "one outage, reported and over"
    assert loaded[0] == loaded[1] and len(loaded[0]) == 1
    for segments in again:
        assert np.abs(sampled(segments) - policy.logprobs(segments)).max() < EXACT
