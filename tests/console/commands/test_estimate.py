"""`gog estimate` reports memory per GPU and what would run out first; `gog validate` warns from the same figures."""

from __future__ import annotations

import json

import pytest
import yaml

from gog_console import cli, sizing
from gog_operator.api import manifest

MODEL = {"base": "/models/Qwen2.5-VL-3B-Instruct", "dtype": "bfloat16"}
TOOLS = ("grounding", "imageSearch", "textSearch", "judge")
WORKERS = {"replicas": 2, "gpus": 4}


@pytest.fixture
def file(tmp_path, monkeypatch):
    """file(spec): path of a manifest; estimates are kept in a folder of the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def write(**spec):
        common = {
            "data": {"path": "/data/pool"},
            "store": {"uri": "s3://bucket/run"},
            "endpoints": {tool: {"url": "http://127.0.0.1:1"} for tool in TOOLS},
        }
        body = {"apiVersion": "gog.dev/v1alpha1", "kind": "GoGRun", "metadata": {"name": "run"}, "spec": common | spec}
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(body))
        return tmp_path / "run.yaml"

    return write


def plan(path, **given):
    return sizing.plan(manifest.load(path), **({"gpus": None, "default_gpus": 8, "gpu_bytes": 80 * 10**9} | given))


def test_a_stage_is_estimated_on_the_gpus_of_its_workers(file):
    path = file(model=MODEL, stages={"grpo": {"workers": WORKERS}})
    gpus = {each.key: (each.gpus, each.gpus_per_node) for each in plan(path).stages}
    assert gpus["grpo"] == (8, 4)
    assert gpus["sft"] == (8, 8), "no GPUs are named, so those assumed"
    assert {each.gpus for each in plan(path, gpus=2).stages} == {2}


def test_the_settings_are_those_that_the_job_would_read_with_the_preset_beneath(file):
    path = file(model=MODEL, stages={"skip": ["curate"], "grpo": {"maxTokens": 1024}})
    [grpo] = [each for each in plan(path).stages if each.key == "grpo"]
    assert grpo.config["max_tokens"] == 1024
    assert grpo.config["group_size"] == 5, "of the preset"


def test_an_arm_is_estimated_only_where_its_configuration_differs(file):
    arms = [{"name": "long", "set": {"stages.grpo.maxTokens": 16384}}]
    keys = [each.key for each in plan(file(model=MODEL, arms=arms)).stages]
    assert keys == ["sft", "stratify", "grpo", "evaluate", "grpo-long"]


def test_an_evaluation_of_an_endpoint_alone_needs_no_gpu(file):
    evaluate = {"policies": ["endpoint"], "endpoint": {"url": "http://127.0.0.1:2", "model": "other"}}
    stages = {"skip": ["curate", "sft", "stratify"], "evaluate": evaluate}
    assert [each.key for each in plan(file(model=MODEL, stages=stages)).stages] == ["grpo"]


def answer(**given):
    phase = {"name": "update", "items": {"base weights": 70 * 10**9, "logits": 0}, "total": 70 * 10**9, "knobs": []}
    stage = {
        "key": "grpo", "phases": [phase, phase | {"name": "decode", "total": 75 * 10**9}], "host_bytes": 10**9,
        "disk_bytes": 0, "speed": None, "notes": ["others wait"],
    }  # fmt: skip
    return {
        "model": "m", "parameters": 10**9, "gpu_bytes": 80 * 10**9, "stages": [stage], "fits": True, "verdict": "fits; …",
    } | given  # fmt: skip


def test_the_report_has_items_as_rows_phases_as_columns_totals_and_headroom(file):
    path = file(model=MODEL, stages={"skip": ["curate", "sft", "stratify", "evaluate"]})
    lines = sizing.text(answer(), plan(path)).splitlines()
    assert lines[2] == "grpo on 8 x 80 GB"
    assert [line.split() for line in lines[3:8]] == [
        ["update", "decode"],
        ["base", "weights", "70.00", "70.00"],
        ["logits", "-", "-"],
        ["total", "70.00", "75.00"],
        ["headroom", "10.00", "5.00"],
    ]
    assert lines[-1] == "fits; …" and "  note: others wait" in lines


def test_validate_warns_where_the_last_estimate_of_the_same_configuration_does_not_fit(file, capsys, monkeypatch):
    path = file(model=MODEL, stages={"grpo": {"workers": WORKERS}})

    def notes():
        assert cli.main(["validate", str(path)]) == 0
        return [line for line in capsys.readouterr().out.splitlines() if "memory" in line or "GB" in line]

    unknown = f"note: whether it fits into the memory of its GPUs is not known yet; gog estimate {path} estimates it"
    assert notes() == [unknown]
    asked = sizing.request(sizing.plan(manifest.load(path), gpus=None, default_gpus=1, gpu_bytes=0))
    sizing._keep(asked, answer(fits=False, verdict="does not fit: …"))
    assert notes() == ["note: on GPUs of 80 GB it does not fit: …"]
    sizing._keep(asked, answer())
    assert notes() == []
    file(model=MODEL, stages={"grpo": {"workers": WORKERS, "maxTokens": 4096}})
    assert len(notes()) == 1, "another configuration"


def test_validate_says_nothing_about_memory_without_gpus(file, capsys):
    assert cli.main(["validate", str(file(model=MODEL))]) == 0
    assert "memory" not in capsys.readouterr().out


def test_an_estimate_of_a_published_model_needs_no_weights_and_ends_with_what_runs_out_first(file, capsys):
    path = file(model=MODEL, stages={"skip": ["curate", "sft", "stratify", "grpo"], "evaluate": {"maxTokens": 2048}})
    code = cli.main(["estimate", str(path), "--gpus", "1", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert code == 0 and found["fits"] and found["verdict"].startswith("fits: the first to run out would be ")
    assert found["model"] == "Qwen2.5-VL-3B" and round(found["parameters"] / 1e9, 2) == 3.75
    [stage] = found["stages"]
    assert [each["name"] for each in stage["phases"]] == ["loading", "vision", "growth", "prefill", "decode"]
    weights = stage["phases"][-1]["items"]["base weights"]
    assert weights == pytest.approx(2 * 3_754_622_976, rel=0.01)


def test_a_run_that_does_not_fit_ends_with_exit_code_1_and_the_setting_to_change(file, capsys):
    path = file(model=MODEL, stages={"skip": ["curate", "sft", "stratify", "grpo"]})
    assert cli.main(["estimate", str(path), "--gpus", "1", "--gpu-memory", "8"]) == 1
    out, err = capsys.readouterr()
    last = out.splitlines()[-1]
    assert last.startswith("does not fit: ") and "; to use less, use GPUs with more memory" in last
    assert "; also too large: " in last
    assert err == "estimating evaluate (1 of 1) with Qwen2.5-VL-3B on 1 GPU\n"
    assert out.startswith(
        "Qwen2.5-VL-3B (built-in configuration, because /models/Qwen2.5-VL-3B-Instruct is not on this"
    )


def test_an_unknown_base_is_refused_with_the_names_that_are_known(file, capsys):
    path = file(model={"base": "/models/mine", "dtype": "bfloat16"}, stages={"skip": ["curate"]})
    assert cli.main(["estimate", str(path)]) == 2
    assert "Qwen3-VL-30B-A3B" in capsys.readouterr().err


def test_a_base_whose_configuration_is_torn_is_refused_by_its_file(file, tmp_path, capsys):
    (tmp_path / "base").mkdir()
    (tmp_path / "base/config.json").write_text('{"model_type": "qwen3_vl", "text')
    path = file(model={"base": str(tmp_path / "base"), "dtype": "bfloat16"}, stages={"skip": ["curate"]})
    assert cli.main(["estimate", str(path)]) == 2
    assert "config.json: is not valid JSON" in capsys.readouterr().err


def test_a_report_names_no_sampling_where_a_stage_samples_nothing(file):
    path = file(model=MODEL, stages={"skip": ["curate", "sft", "stratify", "evaluate"]})
    speed = {"rollout_seconds": 0.0, "update_seconds": 5.0, "assumes": "…"}
    found = answer()
    found["stages"][0]["speed"] = speed
    assert (
        "  time of an optimizer step: about 5 s of updating, assuming …" in sizing.text(found, plan(path)).splitlines()
    )


def test_a_report_begins_with_the_gpus_that_it_assumes(file, capsys, monkeypatch):
    monkeypatch.setattr(sizing, "run", lambda asked, report: answer())
    skipped = {"skip": ["curate", "sft", "stratify", "evaluate"]}
    path = file(model=MODEL, stages=skipped)
    assert cli.main(["estimate", str(path)]) == 0
    assert capsys.readouterr().out.startswith("8 GPUs are assumed, because no stage has workers.gpus; ")
    assert cli.main(["estimate", str(path), "--gpus", "8"]) == 0
    assert cli.main(["estimate", str(file(model=MODEL, stages=skipped | {"grpo": {"workers": WORKERS}}))]) == 0
    assert "assumed, because" not in capsys.readouterr().out
