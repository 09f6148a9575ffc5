"""The remedies that `gog estimate` names: each lowers the figure, and none is named that would not."""

from __future__ import annotations

import json

import pytest
from support.estimate_builders import LENGTH, configuration
from support.real_structures import real_base  # noqa: F401 (a fixture)

from gog.spec import EvaluateConfig, GRPOConfig
from gog_recipes.estimate import budget, report
from gog_recipes.estimate.meter import Item
from gog_recipes.estimate.request import Request, StageRequest


@pytest.fixture(scope="module")
def by_phase(real_base):  # noqa: F811
    """by_phase(gpus, **settings): the estimate of a GRPO stage by phase."""
    known = {}
    config = json.loads((real_base("qwen3_vl") / "config.json").read_text())

    def estimate(gpus=2, **settings):
        sizes = {"concurrent_episodes": 4, "micro_batch_tokens": 4 * LENGTH, "prefill_tokens": LENGTH}
        cfg = configuration(GRPOConfig, "unused", "bfloat16", **(sizes | settings))
        stage = {
            "key": "grpo",
            "kind": "grpo",
            "gpus": gpus,
            "gpus_per_node": gpus,
            "config": cfg.model_dump(mode="json"),
        }
        request = Request(gpu_bytes=4 * 10**9, model="small", stages=[StageRequest(**stage)])
        key = request.model_dump_json()
        if key not in known:
            [found] = report.estimate(request, "small", config).stages
            known[key] = {phase.name: phase for phase in found.phases}
        return known[key]

    return estimate


def images_of(pixels):
    return {"model": {"base": "unused", "dtype": "bfloat16", "max_pixels": pixels}}


LONG = {"kv_cache_bytes": 2**20, "max_tokens": 16 * LENGTH, "prefill_tokens": 8 * LENGTH}
"""With so long a part of a prompt and so small a cache, the workspace of a small model is a large item."""
REMEDIES = [
    ("vision", "lower model.maxPixels", images_of(8_000_000), images_of(1_000_000)),
    ("update", "lower stages.grpo.microBatchTokens", {}, {"micro_batch_tokens": LENGTH}),
    ("update", "use more GPUs", {}, {"gpus": 8}),
    ("prefill", "lower stages.grpo.prefillTokens", LONG, LONG | {"prefill_tokens": LENGTH}),
    ("decode", "set stages.grpo.kvCacheBytes below", {}, {"kv_cache_bytes": 2**20}),
    ("decode", "sample with vLLM", {}, {"engine": "vllm"}),
]


@pytest.mark.parametrize(("phase", "remedy", "before", "after"), REMEDIES, ids=[each[1] for each in REMEDIES])
def test_a_remedy_that_is_named_lowers_the_figure(by_phase, phase, remedy, before, after):
    found, changed = by_phase(**before)[phase], by_phase(**after)
    assert any(remedy in knob for knob in found.knobs), found.knobs
    assert phase not in changed or changed[phase].total < found.total


def test_an_item_of_a_hundredth_of_a_phase_gets_no_remedy():
    given = {"sharded": True, "quantizable": False, "bounded": False, "roomy": False, "alone": False}
    items = {Item.BASE: 20 * 10**9, Item.ADAPTERS: 2 * 10**8}
    assert budget.knobs("sft", "loading", items, **given) == ["use GPUs with more memory"]
    assert budget.knobs("sft", "loading", items | {Item.ADAPTERS: 2 * 10**9}, **given)[1:] == [
        "lower stages.sft.lora.rank"
    ]


def test_smaller_images_are_no_remedy_where_a_pass_takes_more_of_them(by_phase):
    assert not any("maxPixels" in knob for knob in by_phase()["vision"].knobs)


def test_more_gpus_are_no_remedy_while_every_process_loads_the_whole_base(by_phase):
    assert not any("more GPUs" in knob for knob in by_phase()["loading"].knobs)


def test_a_base_whose_weights_do_not_divide_into_blocks_is_not_advised_to_be_quantized(real_base):  # noqa: F811
    common = {
        "model": {"base": "unused", "dtype": "bfloat16"},
        "data": {"world": {}},
        "store": {"uri": "file:///unused"},
    }
    cfg = EvaluateConfig.model_validate(common | {"max_tokens": LENGTH})
    where = {"key": "evaluate", "kind": "evaluate", "gpus": 1, "gpus_per_node": 1}
    request = Request(gpu_bytes=10**9, model="odd", stages=[StageRequest(**where, config=cfg.model_dump(mode="json"))])

    def advised(inner):
        config = json.loads((real_base("qwen3_vl") / "config.json").read_text())
        config["text_config"] |= {"hidden_size": 272, "intermediate_size": inner}
        config["vision_config"]["out_hidden_size"] = 272
        [found] = report.estimate(request, "odd", config).stages
        return any("nf4" in knob for phase in found.phases for knob in phase.knobs)

    assert not advised(511) and advised(512)  # 272 · 511 is no multiple of 64
