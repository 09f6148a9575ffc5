"""What is built from objects: configurations, command lines, TorchX definitions, names."""

from __future__ import annotations

import sys
from pathlib import Path

import hypothesis
import pytest
import yaml
from hypothesis import strategies
from omegaconf import OmegaConf
from support import operator_golden
from support.operator_builders import STORE, make_run, make_stage, make_tool_server
from torchx.specs import macros

from gog import catalog
from gog import spec as settings
from gog.errors import UserError
from gog.tracing import ids
from gog_console import cli
from gog_console.commands import stage as stage_command
from gog_operator.api import names, sequence
from gog_operator.build import app, children, config, inference, merge, servers, tool_check, volcano
from gog_recipes.runtime import components

DATA = settings.DataSpec(path="/data")
PRESETS = stage_command.presets()


def test_a_configuration_has_what_the_user_set_and_what_only_the_operator_knows():
    stage = make_stage(learningRate=1e-3, optimizer={"_component_": "torch.optim.SGD"}, backoffLimit=1, suspend=True)
    body = config.render(stage, data=DATA, endpoints={"judge": "http://j"}, workdir="/work")
    assert body == {
        "model": {"base": "tiny"},
        "data": {"path": "/data"},
        "store": {"uri": "file:///store"},
        "learning_rate": 1e-3,
        "optimizer": {"_component_": "torch.optim.SGD"},
        "stage": "sft",
        "endpoints": {"judge": "http://j"},
        "workdir": "/work",
        "run": "world-stage",
        "seed": 0,
        "inputs": {},
    }


def test_the_spans_of_a_stage_are_children_of_its_run_and_name_the_attempt():
    run = make_run(traces={"endpoint": "http://collector:4318"})
    step = sequence.steps(run)[1]
    stage = children.stage(run, step, {}, settings.StoreSpec(uri="file:///store"))
    stage = stage.model_copy(update={"status": stage.status.model_copy(update={"attempt": 3})})
    body = config.render(stage, data=DATA, endpoints={}, workdir="/work")
    root = ids.root(run.metadata.uid).traceparent
    assert body["traces"] == {"endpoint": "http://collector:4318", "traceparent": root, "attempt": 3}
    assert settings.SFTConfig.model_validate(merge.final(body, [], PRESETS, "sft")).traces.share == 0.01


def test_a_standalone_stage_is_the_root_of_its_spans_unless_its_spec_names_a_parent():
    collector, theirs = "http://collector:4318", ids.root("theirs").traceparent
    stage = make_stage(traces={"endpoint": collector})
    alone = config.render(stage, data=DATA, endpoints={}, workdir="/work")
    assert alone["traces"]["traceparent"] == ids.root(stage.metadata.uid).traceparent
    child = make_stage(traces={"endpoint": collector, "traceparent": theirs})
    assert config.render(child, data=DATA, endpoints={}, workdir="/work")["traces"]["traceparent"] == theirs


@pytest.mark.parametrize("kind", settings.STAGES)
def test_the_configuration_of_every_stage_over_its_preset_is_valid_for_its_recipe(kind):
    cls = settings.CONFIGS[kind]
    stage = make_stage({"sft": "SFTStage", "grpo": "GRPOStage"}.get(kind, f"{kind.capitalize()}Stage"))
    body = config.render(stage, data=DATA, endpoints={"judge": "http://j"}, workdir="/work")
    final = merge.final(yaml.safe_load(yaml.safe_dump(body)), [], PRESETS, kind)
    read = cls.model_validate(final)
    assert read.data == DATA and read.store.uri == "file:///store" and read.key == kind


def test_the_file_overrides_the_preset_and_assignments_override_both():
    file = {"model": {"base": "tiny"}, "lora": {"rank": 2}, "data": {"path": "/data"}}
    final = merge.final(file, ["lora.alpha=3", "epochs=1", "levels=[1]"], PRESETS, "sft")
    assert final["lora"] == {"rank": 2, "alpha": 3} and final["epochs"] == 1 and final["levels"] == [1]
    assert final["data"] == {"path": "/data"}, "a place is replaced as a whole"


def test_a_family_without_a_preset_is_refused_with_the_known_families():
    with pytest.raises(UserError) as caught:
        merge.final({"model": {"base": "tiny", "family": "llava"}}, [], PRESETS, "sft")
    assert "no preset for family 'llava'" in str(caught.value) and "known for sft: " in str(caught.value)
    with pytest.raises(UserError, match=r"model\.base: missing"):
        merge.final({}, [], PRESETS, "sft")


def test_the_command_line_of_a_server_has_its_address_its_data_and_its_failures():
    line = servers.arguments(
        make_tool_server("imageSearch", failures={"rate": 0.03, "kinds": ["429"]}),
        host="127.0.0.1",
        port=0,
        ready_file="/ready.json",
        data=DATA,
    )
    assert line[:7] == ["image-search", "--host", "127.0.0.1", "--port", "0", "--ready-file", "/ready.json"]
    assert line[7:] == ["--data", "/data", "--failures", '{"rate": 0.03, "kinds": ["429"], "seed": 0}']


def test_the_component_is_found_by_the_name_of_its_module():
    definition = app.compile_stage("sft", name="world-sft-a1", config="/c.yaml", program="python -m gog_console")
    (role,) = definition.roles
    assert (definition.name, role.name, role.entrypoint) == ("world-sft-a1", "trainer", "python")
    assert role.args == ["-m", "gog_console", "stage", "sft", "--config", "/c.yaml"]
    assert role.num_replicas == 1 and role.max_retries == 0


def test_what_torchx_would_read_as_a_macro_reaches_the_stage_as_it_is():
    env, program = {"FOLDER": "/${app_id}/$$"}, "'/opt/${img_root}/gog' '${app_id}'"
    definition = app.compile_stage("sft", name="a", config="/${app_id}/$replica_id/c.yaml", program=program, env=env)
    values = macros.Values(img_root="IMG", app_id="APP", replica_id="0", rank0_env="RANK0")
    role = values.apply(definition.roles[0])
    assert role.args == ["${app_id}", "stage", "sft", "--config", "/${app_id}/$replica_id/c.yaml"] and role.env == env
    assert role.entrypoint == "/opt/${img_root}/gog"


@hypothesis.given(strategies.text("ab\\${}. "), strategies.text("$\\{}"))
def test_what_omegaconf_would_read_as_a_reference_reaches_the_recipe_as_it_is(text, other):
    body = {"workdir": text, "more": [{"deep": other}]}
    assert OmegaConf.to_container(OmegaConf.create(stage_command.literal(body)), resolve=True) == body


def test_several_processes_run_under_torchrun_with_their_rendezvous_at_replica_0():
    (role,) = components.stage("grpo", "/c.yaml", nodes=2, processes=8, gpu=8).roles
    assert role.args[2:8] == [
        "--nnodes=2",
        "--nproc_per_node=8",
        "--rdzv_backend=static",
        "--node_rank=${replica_id}",
        "--rdzv_endpoint=$$${rank0_env}:29500",
        "--rdzv_id=${app_id}",
    ]
    assert role.num_replicas == 2 and role.resource.gpu == 8


def test_gog_stage_executes_its_recipe_or_torchrun_where_it_has_options_of_torchrun(monkeypatch):
    monkeypatch.delenv(stage_command.PROGRAM, raising=False)
    recipe = ["-m", "gog_recipes.sft", "--config", "/final.yaml"]
    launch = [sys.executable, "-m", "gog_recipes.runtime.launch"]
    assert stage_command.command("sft", Path("/final.yaml"), []) == [*launch, *recipe]
    for options, more in ((["--nproc_per_node=2"], ["--standalone"]), (["--nnodes=2", "--rdzv_endpoint=a:1"], [])):
        assert stage_command.command("sft", Path("/final.yaml"), options) == [*launch, *more, *options, *recipe]


def test_an_argument_of_gog_stage_is_an_assignment_or_an_option_of_torchrun():
    line = ["stage", "sft", "--nnodes=2", "--nproc_per_node", "2", "--config", "c.yaml", "epochs=1", "lora.rank=4"]
    given, rest = cli.build_parser().parse_known_args(line)
    assert (given.kind, given.config) == ("sft", "c.yaml")
    assert stage_command.sort(rest) == (["epochs=1", "lora.rank=4"], ["--nnodes=2", "--nproc_per_node", "2"])


def test_a_rank_finds_its_leader_in_the_environment(monkeypatch):
    monkeypatch.setenv("VC_TRAINER_0_HOSTS", "leader")
    assert stage_command.sort(["--rdzv_endpoint=$VC_TRAINER_0_HOSTS:29500"]) == ([], ["--rdzv_endpoint=leader:29500"])


def test_names_that_are_too_long_are_cut_and_remain_distinct():
    assert names.child("world", "grpo-no-gaze") == "world-grpo-no-gaze"
    long, other = names.child("w" * 40, "stratify-a"), names.child("w" * 40, "stratify-b")
    assert len(long) == names.LIMIT and long != other and names.child("w" * 40, "stratify-a") == long


VLLM_STAGES = {"stratify": {"engine": "vllm"}, "grpo": {"engine": "vllm", "maxTokens": 4096}}


def stage_of(run, kind):
    [step] = [each for each in sequence.steps(run) if each.key == kind]
    return children.stage(run, step, {}, STORE).spec


def test_a_stage_with_engine_vllm_is_given_the_policy_s_servers_and_the_others_are_not():
    url = "http://a:8000,http://b:8000"
    run = make_run(stages=VLLM_STAGES, endpoints={"policy": {"url": url, "secretName": "vllm-key"}})
    assert stage_of(run, "grpo").endpoints["policy"] == url
    assert stage_of(run, "grpo").endpoint_secrets == {"policy": "vllm-key"}
    assert "policy" not in stage_of(run, "evaluate").endpoints | stage_of(run, "evaluate").endpoint_secrets
    run = make_run(stages=VLLM_STAGES, endpoints={"policy": {"runtime": "vllm"}})
    assert stage_of(run, "stratify").endpoints["policy"] == "world-policy"


def test_only_curate_gets_the_key_of_the_model_that_teaches():
    teacher = {"url": "http://e", "model": "m", "secretName": "teacher"}
    run = make_run(stages={"curate": {"teacher": "endpoint", "endpoint": teacher}})
    assert stage_of(run, "curate").endpoint_secrets["endpoint"] == "teacher"
    assert "endpoint" not in stage_of(run, "evaluate").endpoint_secrets


def test_only_evaluate_gets_the_key_of_the_model_that_it_compares():
    compared = {"url": "http://e", "model": "m", "secretName": "vendor"}
    run = make_run(stages={"evaluate": {"policies": ["endpoint"], "endpoint": compared}})
    assert stage_of(run, "evaluate").endpoint_secrets == {"endpoint": "vendor"}
    assert "endpoint" not in stage_of(run, "grpo").endpoint_secrets


def test_a_vllm_that_gog_starts_has_the_options_that_the_run_implies_unless_the_manifest_gives_them():
    stages = VLLM_STAGES | {"sft": {"lora": {"rank": 64}}}
    run = make_run(stages=stages, endpoints={"policy": {"runtime": "vllm", "options": {"dtype": "half"}}})
    endpoint = children.vllm(run, STORE)
    assert endpoint.spec.options == {"dtype": "half", "max-lora-rank": 128}, "stratify leaves its length open"
    line = servers.arguments(endpoint, host="127.0.0.1", port=0)
    assert line[:3] == ["policy", "--runtime", "vllm"] and "--model" in line
    stages["stratify"] = {"engine": "vllm", "maxTokens": 2048}
    run = make_run(stages=stages, endpoints={"policy": {"runtime": "vllm"}})
    assert children.vllm(run, STORE).spec.options["max-model-len"] == 4096


def test_the_served_policy_sees_images_at_the_size_of_training():
    run = make_run(model={"base": "tiny", "minPixels": 1568, "maxPixels": 6272}, endpoints={"policy": {}})
    served = children.policy(run, STORE, "grpo/40")
    line = servers.arguments(served, host="127.0.0.1", port=0)
    assert line[line.index("--max-pixels") + 1] == "6272" and line[line.index("--min-pixels") + 1] == "1568"
    run = make_run(model={"base": "tiny", "maxPixels": 6272}, endpoints={"policy": {"runtime": "vllm"}})
    started = children.vllm(run, STORE)
    assert started.spec.options["mm-processor-kwargs"] == {"max_pixels": 6272}
    for endpoint in (started, children.policy(run, STORE, "grpo/40")):
        assert "--max-pixels" not in servers.arguments(endpoint, host="127.0.0.1", port=0), "vLLM has no such option"
    plain = children.policy(make_run(endpoints={"policy": {}}), STORE, "grpo/40")
    assert not {"max_pixels", "min_pixels"} & plain.spec.model_fields_set


def test_a_stage_has_the_secret_of_each_tool_that_requires_a_key():
    run = make_run(endpoints={"judge": {"url": "https://judge.internal/v1", "secretName": "judge-key"}})
    assert children.keys(run) == {"judge": "judge-key"}
    (job,) = [each for each in operator_golden.documents("stage-placed") if each["kind"] == "Job"]
    for task in job["spec"]["tasks"]:
        (container,) = task["template"]["spec"]["containers"]
        key = {"name": "judge-key", "key": "GOG_API_KEY"}
        assert {"name": "JUDGE_GOG_API_KEY", "valueFrom": {"secretKeyRef": key}} in container["env"]


def test_keys_of_vendors_reach_the_pods_of_their_tool_server_and_no_trainer():
    tools = {"textSearch": {"backend": "brave", "secretName": "search-keys"}}
    judge = {"judge": {"url": "https://judge.internal", "secretName": "judge-key"}}
    fallback = {"textSearch": {"fallback": {"url": "https://other", "secretName": "other-key"}}}
    run = make_run(endpoints=tools | judge, tools=fallback)
    (step,) = [each for each in sequence.steps(run) if each.key == "grpo"]
    job = volcano.job(children.stage(run, step, {}, STORE), operator_golden.PLATFORM)
    (container,) = [each for task in job["spec"]["tasks"] for each in task["template"]["spec"]["containers"]]
    whole = [each["secretRef"]["name"] for each in container.get("envFrom", ()) if "secretRef" in each]
    assert not {"search-keys", "judge-key", "other-key"} & set(whole)
    taken = {each["name"]: each["valueFrom"]["secretKeyRef"] for each in container["env"] if "valueFrom" in each}
    assert taken == {
        "TEXT_SEARCH_GOG_API_KEY": {"name": "search-keys", "key": "GOG_API_KEY", "optional": True},
        "TEXT_SEARCH_FALLBACK_GOG_API_KEY": {"name": "other-key", "key": "GOG_API_KEY"},
        "JUDGE_GOG_API_KEY": {"name": "judge-key", "key": "GOG_API_KEY"},
    }, "the key is optional where gog starts the server, which then requires none"
    (search,) = [each for each in children.tool_servers(run, STORE) if each.spec.role == "textSearch"]
    server = inference.service(search, operator_golden.PLATFORM, None)["spec"]["predictor"]["containers"][0]
    assert {"secretRef": {"name": "search-keys"}} in server["envFrom"]


def test_an_optional_tool_belongs_to_the_runs_that_name_its_endpoint():
    without, named = make_run(), make_run(endpoints={"ocr": {"secretName": "ocr-key"}})
    for run, expected in ((without, False), (named, True)):
        (step, *_) = sequence.steps(run)
        stage = children.stage(run, step, {}, STORE)
        assert ("ocr" in {each.spec.role for each in children.tool_servers(run, STORE)}) is expected
        assert ("ocr" in stage.spec.endpoints) is ("ocr" in stage.spec.backends) is expected
        assert ("ocr" in children.keys(run)) is ("ocr" in tool_check.roles(run)) is expected


def test_a_strict_replay_has_no_servers_and_no_keys_and_the_keys_of_the_recorded_run():
    endpoints = {
        "textSearch": {"secretName": "search-keys"},
        "judge": {"model": "qwen"},
        "imageSearch": {"url": "http://own:1"},
    }
    recorded, replayed = (
        make_run(endpoints=endpoints, tools={"cache": {"mode": mode, "path": "answers.sqlite"}})
        for mode in ("record", "replay-strict")
    )
    (step,) = [each for each in sequence.steps(replayed) if each.key == "grpo"]
    stage, first = (children.stage(run, step, {}, STORE) for run in (replayed, recorded))
    assert children.tool_servers(replayed, STORE) == ()
    assert stage.spec.endpoint_secrets == {} and stage.spec.judge_model == "qwen"
    assert stage.spec.backends == first.spec.backends, "back ends are part of the keys of recorded answers"
    assert stage.spec.endpoints.pop("imageSearch") == "http://own:1", "so is the address of an existing server"
    assert set(stage.spec.endpoints.values()) == {children.RECORDED}
    assert set(stage.spec.endpoints) == {"grounding", "textSearch", "judge"}


def test_recorded_answers_are_keyed_by_back_end_options_and_dataset_and_not_by_a_port():
    def named(**spec):
        return children.backends(make_run(**spec))

    same, again = named(), named(endpoints={"textSearch": {"port": 7000}})
    assert same == again and set(same) == set(settings.TOOLS) - catalog.OPTIONAL_TOOLS
    options = named(endpoints={"textSearch": {"options": {"shards": 2}}})
    other = named(endpoints={"textSearch": {"backend": "my_index:make"}})
    data = named(data={"world": {"seed": 8}})
    assert len({each["textSearch"] for each in (same, options, other, data)}) == 4
    assert {each["judge"] for each in (same, options, other, data)} == {same["judge"]}, "it reads no dataset"


def test_an_existing_server_is_keyed_by_its_address():
    assert "judge" not in children.backends(make_run(endpoints={"judge": {"url": "https://judge.internal/v1"}}))
