"""The specification of a run: what is accepted, what is refused, and where every default comes from."""

from __future__ import annotations

import datetime
import functools
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import ValidationError

from gog import catalog, spec

MODEL, DATA, STORE = {"base": "tiny"}, {"world": {}}, {"uri": "file:///tmp/store"}
MINIMAL_STAGE = {"model": MODEL, "data": DATA, "store": STORE}
SETTINGS = (
    spec.ToolsSpec,
    spec.JudgePolicy,
    spec.OutageSpec,
    spec.AgentSettings,
    spec.CurateSettings,
    spec.LoraSettings,
    spec.SFTSettings,
    spec.StratifySettings,
    spec.GRPOSettings,
    spec.EvaluateSettings,
)
DEFAULTS = {
    f"{settings.__name__}.{name}": field for settings in SETTINGS for name, field in settings.model_fields.items()
}
FROM_THE_PAPER = {
    "AgentSettings.max_tokens": 8192,
    "CurateSettings.uncertainty_samples": 4,
    "LoraSettings.rank": 8,
    "SFTSettings.epochs": 3,
    "SFTSettings.batch_size": 8,
    "SFTSettings.learning_rate": 1e-4,
    "GRPOSettings.levels": ("2",),
    "GRPOSettings.learning_rate": 2e-6,
    "GRPOSettings.kl_coef": 0.001,
}
NOT_THE_METHODS = {
    "how much is kept, done or reported": "steps max_steps questions save_every keep_trajectories bootstrap split",
    "what a run is made of": "cache lora optimizer demonstrations teacher policies",
    "groups of fields with sources of their own": " ".join(
        [*(tool.field for tool in catalog.TOOLS), "outage", "policy_server"]
    ),
    "common conventions, in no publication": "temperature clip_grad_norm dropout warmup_steps",
    "a choice that its description explains": "gaze reasoning",
}
"""Fields that need no mark, by reason; everything else is a figure of the method and says where it comes from."""
MARK = re.compile(r"\[[^\]]*\b(paper|peer|ours|brief)\b[^\]]*\]")


def complaint(kind: type[spec.Spec], given: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(given)
    return str(caught.value)


# ---- sources of defaults


@pytest.mark.parametrize("name", DEFAULTS)
def test_every_value_of_the_method_names_its_source(name: str) -> None:
    exempt = name.partition(".")[2] in " ".join(NOT_THE_METHODS.values()).split()
    assert exempt or MARK.search(DEFAULTS[name].description or "")


def test_exactly_the_paper_s_values_are_marked_as_the_paper_s() -> None:
    called = {name for name, field in DEFAULTS.items() if re.search(r"\[paper\b", field.description or "")}
    assert called == set(FROM_THE_PAPER)
    assert {name: DEFAULTS[name].default for name in called} == FROM_THE_PAPER


def test_values_that_the_paper_leaves_open_are_marked_as_ours_or_a_peer_s() -> None:
    for name in ("GRPOSettings.format_weight", "GRPOSettings.clip", "AgentSettings.max_calls", "ToolsSpec.top"):
        assert "[peer" in DEFAULTS[name].description
    for name in (
        "ToolsSpec.overlap",
        "ToolsSpec.max_candidates",
        "GRPOSettings.keep_unsolved",
        "CurateSettings.teacher_accuracy",
    ):
        assert "[ours" in DEFAULTS[name].description


def test_both_published_group_sizes_are_named_and_accepted() -> None:
    assert "brief: 5" in DEFAULTS["GRPOSettings.group_size"].description
    assert "paper note: 4" in DEFAULTS["GRPOSettings.group_size"].description
    assert spec.GRPOSettings().group_size == 5
    assert spec.GRPOSettings(group_size=4).group_size == 4


def test_the_defaults_of_the_reward_are_the_published_ones() -> None:
    settings = spec.GRPOSettings()
    assert (settings.format_weight, settings.search_penalty) == (0.1, 0.0)


def test_all_episodes_that_run_at_once_by_default_may_wait_for_the_same_tool() -> None:
    assert spec.ToolsSpec().concurrency >= spec.AgentSettings().concurrent_episodes


# ---- what is accepted


def test_a_manifest_with_a_model_and_data_is_enough() -> None:
    run = spec.RunSpec.model_validate(yaml.safe_load("{model: {base: tiny}, data: {world: {}}}"))
    assert run.data.world == spec.WorldSpec() and run.store is None
    assert (run.stages, run.tools, run.arms, run.suspend) == (spec.Stages(), spec.ToolsSpec(), (), False)


@pytest.mark.parametrize("kind", spec.STAGES)
def test_a_stage_with_model_data_and_store_is_enough(kind: str) -> None:
    config = spec.CONFIGS[kind].model_validate(MINIMAL_STAGE)
    assert (config.kind, config.key) == (kind, kind)
    assert config.model_copy(update={"stage": "grpo-off"}).key == "grpo-off"


def test_camel_case_and_snake_case_are_the_same_configuration() -> None:
    camel = "{model: {base: tiny}, data: {world: {}}, store: {uri: 's3://b/p'}, groupSize: 4, maxTurnTokens: 9}"
    snake = "{model: {base: tiny}, data: {world: {}}, store: {uri: 's3://b/p'}, group_size: 4, max_turn_tokens: 9}"
    one, other = (spec.GRPOConfig.model_validate(yaml.safe_load(text)) for text in (camel, snake))
    assert one == other and (one.group_size, one.max_turn_tokens) == (4, 9)


@pytest.mark.parametrize("by_alias", [True, False])
@pytest.mark.parametrize("kind", spec.STAGES)
def test_a_configuration_is_read_back_as_it_was_written(kind: str, by_alias: bool) -> None:
    config = spec.CONFIGS[kind].model_validate(MINIMAL_STAGE)
    text = yaml.safe_dump(config.model_dump(mode="json", by_alias=by_alias))
    assert spec.CONFIGS[kind].model_validate(yaml.safe_load(text)) == config


@pytest.mark.parametrize("written", ["off", "'off'", "false"])
def test_a_bare_off_is_off(written: str) -> None:
    assert spec.AgentSettings.model_validate(yaml.safe_load(f"gaze: {written}")).gaze == "off"


@pytest.mark.parametrize("written", ["on", "true", "0", "no way"])
def test_nothing_else_is_off(written: str) -> None:
    assert "gaze" in complaint(spec.AgentSettings, yaml.safe_load(f"gaze: {written}"))


@pytest.mark.parametrize("written", ["[1, 2]", "['1', '2']", "[1, '2']"])
def test_levels_may_be_written_as_numbers(written: str) -> None:
    assert spec.GRPOSettings.model_validate({"levels": yaml.safe_load(written)}).levels == ("1", "2")


def test_an_optimizer_is_named_as_recipes_name_components() -> None:
    settings = spec.OptimizerSettings.model_validate({"_component_": "torch.optim.SGD"})
    assert settings.component == "torch.optim.SGD"
    assert settings.model_dump(by_alias=True)["_component_"] == "torch.optim.SGD"


@pytest.mark.parametrize(
    ("model", "preset"),
    [
        ({"base": "tiny"}, "tiny"),
        ({"base": "/models/qwen"}, "qwen2.5-vl"),
        ({"base": "/models/mine", "family": "tiny"}, "tiny"),
        ({"base": "s3://bucket/Qwen3-VL-8B-Instruct/"}, "qwen3-vl"),
        ({"base": "hf://Qwen/Qwen3-VL-30B-A3B-Instruct"}, "qwen3-vl-moe"),
        ({"base": "/models/tiny/Qwen2.5-VL-3B-Instruct"}, "qwen2.5-vl"),
    ],
)
def test_the_preset_follows_the_model(model: dict[str, str], preset: str) -> None:
    assert spec.ModelSpec.model_validate(model).preset == preset


@pytest.mark.parametrize(
    ("model_type", "preset"), [("qwen3_vl", "qwen3-vl"), ("qwen3_vl_moe", "qwen3-vl-moe"), ("qwen2_5_vl", "qwen2.5-vl")]
)
def test_the_preset_follows_the_model_type_and_not_the_name(tmp_path: Path, model_type: str, preset: str) -> None:
    folder = tmp_path / "qwen2.5-vl-or-so"
    folder.mkdir()
    (folder / "config.json").write_text(f'{{"model_type": "{model_type}"}}')
    assert spec.ModelSpec(base=str(folder)).preset == preset


def test_pixel_bounds_must_not_contradict_each_other() -> None:
    with pytest.raises(ValidationError, match="minPixels must not be above maxPixels"):
        spec.ModelSpec(base="tiny", min_pixels=2000, max_pixels=1000)


# ---- what is refused


@pytest.mark.parametrize("kind", [*SETTINGS, spec.WorldSpec, spec.EndpointSpec, spec.CacheSpec, spec.Stages])
def test_an_unknown_field_is_refused_by_name(kind: type[spec.Spec]) -> None:
    assert "colour\n  Extra inputs are not permitted" in complaint(kind, {"colour": "red"})


@pytest.mark.parametrize("number", [".inf", "-.inf", ".nan"])
def test_a_number_that_is_not_finite_is_refused_by_field(number: str) -> None:
    given = {**MINIMAL_STAGE, "clipGradNorm": yaml.safe_load(number)}
    assert "clipGradNorm\n  Input should be a finite number" in complaint(spec.CONFIGS["sft"], given)


def test_a_misspelt_field_deep_inside_is_refused_with_its_path() -> None:
    given = {"model": MODEL, "data": DATA, "stages": {"grpo": {"groupsize": 4}}}
    assert "stages.grpo.groupsize\n  Extra inputs are not permitted" in complaint(spec.RunSpec, given)


@pytest.mark.parametrize(
    ("data", "given"),
    [
        ({}, "none"),
        ({"world": {}, "path": "/data"}, "world, path"),
        ({"path": "/data", "uri": "s3://b/d"}, "path, uri"),
        ({"world": {}, "path": "/data", "uri": "s3://b/d"}, "world, path, uri"),
    ],
)
def test_data_is_exactly_one_of_world_path_and_uri(data: dict[str, Any], given: str) -> None:
    assert f"give exactly one of world, path, uri (given: {given})" in complaint(spec.DataSpec, data)


@pytest.mark.parametrize("data", [{"world": {}}, {"path": "/data"}, {"uri": "s3://bucket/data"}])
def test_each_of_world_path_and_uri_is_enough(data: dict[str, Any]) -> None:
    assert spec.DataSpec.model_validate(data).model_dump(exclude_none=True).keys() == data.keys()


@pytest.mark.parametrize("data", [{"world": {}}, {"uri": "s3://bucket/data"}])
def test_only_a_dataset_at_a_path_has_a_format(data: dict[str, Any]) -> None:
    assert "format is of the dataset at path" in complaint(spec.DataSpec, {**data, "format": "gog-jsonl"})
    assert spec.DataSpec(path="/data", format="my_package.okvqa:Reader").format == "my_package.okvqa:Reader"


@pytest.mark.parametrize("field", ["model", "data", "store"])
def test_a_stage_needs_model_data_and_store(field: str) -> None:
    given = {name: value for name, value in MINIMAL_STAGE.items() if name != field}
    assert f"{field}\n  Field required" in complaint(spec.SFTConfig, given)


@pytest.mark.parametrize("uri", ["/tmp/store", "http://store", "s3:/b", "gs://b"])
def test_a_store_is_a_file_or_an_s3_address(uri: str) -> None:
    assert "uri" in complaint(spec.StoreSpec, {"uri": uri})


@pytest.mark.parametrize("name", ["Run", "1st", "a_b", "a-", "-a", "", "a" * 41, "a/b", "../a"])
def test_a_name_that_kubernetes_would_refuse_is_refused(name: str) -> None:
    assert "run" in complaint(spec.SFTConfig, {**MINIMAL_STAGE, "run": name})


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (spec.GRPOSettings, {"group_size": 1}),
        (spec.GRPOSettings, {"format_weight": 1.1}),
        (spec.GRPOSettings, {"levels": []}),
        (spec.GRPOSettings, {"levels": ["3"]}),
        (spec.GRPOSettings, {"levels": ["2", 2]}),
        (spec.GRPOSettings, {"failures": "ignore"}),
        (spec.StratifySettings, {"rollouts": 0}),
        (spec.ToolsSpec, {"concurrency": 0}),
        (spec.ToolsSpec, {"deadline_seconds": 0}),
        (spec.ToolsSpec, {"attempts": 0}),
        (spec.EndpointSpec, {"url": "ftp://tools"}),
        (spec.FailureInjection, {"rate": 1.5}),
        (spec.FailureInjection, {"kinds": []}),
        (spec.CurateSettings, {"teacher_accuracy": -0.1}),
        (spec.EvaluateSettings, {"policies": ["oracle"]}),
    ],
)
def test_a_value_out_of_its_range_is_refused_by_its_field(kind: type[spec.Spec], given: dict[str, Any]) -> None:
    assert complaint(kind, given).splitlines()[1].startswith(next(iter(given)))


def test_a_configuration_is_immutable() -> None:
    with pytest.raises(ValidationError, match="Instance is frozen"):
        spec.GRPOSettings().group_size = 4  # type: ignore[misc]


# ---- lists that must agree


def test_every_stage_has_a_configuration_needs_and_a_field_in_manifests() -> None:
    assert set(spec.STAGES) == set(spec.CONFIGS) == set(spec.NEEDS) == set(spec.NEEDS_TOOLS)
    assert set(spec.STAGES) == set(spec.Stages.model_fields) - {"skip"}
    for kind, needed in spec.NEEDS.items():
        assert all(spec.STAGES.index(other) < spec.STAGES.index(kind) for other in needed)


def test_every_policy_can_be_evaluated() -> None:
    (literal, _) = get_args(spec.EvaluateSettings.model_fields["policies"].annotation)
    assert get_args(literal) == tuple(spec.POLICIES)


def test_every_tool_has_an_endpoint_in_manifests() -> None:
    endpoints = {field.alias for field in spec.EndpointsSpec.model_fields.values()} - {"policy"}
    assert endpoints == set(spec.TOOLS)


# ---- policies of tools


def test_a_tool_takes_the_common_policy_where_it_has_no_value_of_its_own() -> None:
    tools = spec.ToolsSpec.model_validate(
        {"attempts": 1, "deadlineSeconds": 0.5, "textSearch": {"deadlineSeconds": 20}}
    )
    assert tools.policy("textSearch") == spec.CallPolicy(attempts=1, deadline_seconds=20, budget_seconds=120)
    assert tools.policy("grounding") == spec.CallPolicy(attempts=1, deadline_seconds=0.5)


def test_a_web_search_has_time_for_its_engine_its_pages_and_their_summaries_by_default() -> None:
    tools = spec.ToolsSpec()
    patience = {each: (tools.policy(each).deadline_seconds, tools.policy(each).budget_seconds) for each in spec.TOOLS}
    assert patience["textSearch"] == patience["imageSearch"] == (60, 120)
    assert patience["grounding"] == (10, 30)


def test_what_is_set_for_every_tool_precedes_the_default_of_one() -> None:
    tools = spec.ToolsSpec.model_validate({"deadlineSeconds": 0.5})
    assert {tools.policy(each).deadline_seconds for each in catalog.SEARCH_TOOLS} == {0.5}
    assert tools.policy("textSearch").budget_seconds == 120


def test_the_judge_takes_no_values_from_the_tools() -> None:
    tools = spec.ToolsSpec.model_validate({"attempts": 1, "deadlineSeconds": 0.5, "judge": {"attempts": 2}})
    assert tools.policy("judge") == spec.JudgePolicy(attempts=2)


@pytest.mark.parametrize("name", ["attempts", "deadline_seconds", "budget_seconds"])
def test_the_judge_is_called_more_patiently_than_a_tool(name: str) -> None:
    assert getattr(spec.JudgePolicy(), name) > getattr(spec.CallPolicy(), name)


@pytest.mark.parametrize("tool", [*spec.TOOLS])
@pytest.mark.parametrize("given", [{"attempts": 0}, {"deadlineSeconds": 0}, {"patience": 3}, {"concurrency": 2000}])
def test_a_tool_s_own_policy_is_checked_like_the_common_one(tool: str, given: dict[str, Any]) -> None:
    assert f"{tool}.{next(iter(given))}" in complaint(spec.ToolsSpec, {tool: given})


def test_a_cache_mode_that_yaml_reads_as_false_is_off() -> None:
    assert spec.ToolsSpec.model_validate(yaml.safe_load("{cache: {mode: off}}")).cache.mode == "off"


# ---- back ends


def test_a_back_end_is_a_name_or_a_factory_with_options_of_its_own() -> None:
    endpoint = spec.EndpointSpec.model_validate(
        {"backend": "my_package.search:make", "options": {"index": "/data/wiki", "shards": [1, 2], "gpu": None}}
    )
    assert endpoint.options == {"index": "/data/wiki", "shards": [1, 2], "gpu": None}


@pytest.mark.parametrize("name", ["", "../x", "a b", "module:", ":factory", "a:b:c", "a;b", "--help"])
def test_a_back_end_s_name_that_could_be_anything_else_is_refused(name: str) -> None:
    assert "backend" in complaint(spec.EndpointSpec, {"backend": name})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"threshold": float("nan")}, "options.threshold: nan is not a finite number"),
        ({"a": [1.0, {"b": float("inf")}]}, "options.a[1].b: inf is not a finite number"),
        ({"a": {1: 2}}, "options.a: key 1 is not text"),
        ({"since": datetime.date(2026, 1, 1)}, "options.since: a date is no JSON value"),
        ({"text": "x" * 9_000}, "more than 8,192"),
        (functools.reduce(lambda inner, _: {"a": inner}, range(10), {}), "nested more than 8 levels deep"),
    ],
    ids=["nan", "inf", "key", "date", "size", "depth"],
)
def test_options_that_json_cannot_carry_are_refused_with_their_path(options: dict[str, Any], words: str) -> None:
    assert words in complaint(spec.EndpointSpec, {"options": options})


@pytest.mark.parametrize("given", ["backend: world", "options: {a: 1}", "failures: {rate: 0.1}"])
def test_an_existing_server_is_not_configured(given: str) -> None:
    manifest = yaml.safe_load(f"{{url: 'http://judge.internal', {given}}}")
    assert "url names an existing server" in complaint(spec.EndpointSpec, manifest)


@pytest.mark.parametrize("kind", ["stratify", "grpo", "evaluate"])
def test_vllm_is_refused_beside_a_quantized_base_which_it_does_not_serve(kind):
    settings = {"engine": "vllm", "baseQuantization": "nf4"}
    with pytest.raises(ValidationError, match="base_quantization nf4 with engine vllm"):
        spec.Stages.model_validate({kind: settings})


@pytest.mark.parametrize(
    "value", ["../../victim/toolservers/judge", "Judge", "a/b", "", "http://key@judge.internal", "a\n"]
)
def test_a_tool_of_a_stage_is_a_plain_address_or_the_name_of_a_tool_server(value: str) -> None:
    given = {"model": {"base": "tiny"}, "data": {"world": {}}, "store": {"uri": "s3://b/p"}}
    for fine in ("world-judge", "http://judge.internal:8080", "https://a.internal/v1,https://b.internal/v1"):
        spec.SFTConfig.model_validate(given | {"endpoints": {"judge": fine}})
    assert "endpoints.judge" in complaint(spec.SFTConfig, given | {"endpoints": {"judge": value}})


def test_a_seed_that_numpy_s_generator_does_not_take_is_refused_before_a_stage_starts():
    taken = spec.SFTConfig.model_validate({**MINIMAL_STAGE, "seed": 2**32 - 1})
    assert taken.seed == 2**32 - 1
    with pytest.raises(ValidationError, match="less than or equal to 4294967295"):
        spec.SFTConfig.model_validate({**MINIMAL_STAGE, "seed": 2**32})
