"""The vLLM engine without a server: what it leaves for servers, and how it waits for them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from peft import PeftModel
from support.vllm_servers import CPU, Policy, image

from gog import prompts
from gog.engine import Limits
from gog.errors import ServiceDown, UserError
from gog.spec import ModelSpec
from gog_recipes.models import lora, policy_model
from gog_recipes.rollout import vllm_proof, vllm_weights
from gog_recipes.runtime.ranks import SINGLE

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
