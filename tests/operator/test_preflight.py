"""A run's external inputs are checked before it starts; a failure leaves one message and no run folder."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants
from support import base_folders, hub_server

from gog import base_model
from gog import spec as settings
from gog.errors import UserError
from gog.tracing import otlp
from gog_operator import preflight


def refusal(harness, path: Path, *line: str) -> str:
    code, output = harness.gog("run", str(path), *line)
    assert code == 2 and not harness.run.exists(), output
    return output.strip()


def damage(pool: Path, how: str) -> str:
    """Damages a dataset; returns the expected message."""
    train = pool / "train.jsonl"
    good = train.read_text()
    if how == "torn line":
        train.write_text(good + "\n" + good[:20])
        return f"{train}:2: line: Invalid JSON: EOF while parsing an object at line 1 column 20 (correct or remove the line)"
    if how == "id twice":
        train.write_text(good + "\n" + good)
        return f"{train}:2: id 'q1' occurs twice (ids must be unique)"
    if how == "missing image":
        (pool / "q1.png").unlink()
        return f"{train}:1: image 'q1.png' is missing"
    if how == "torn image":
        (pool / "q1.png").write_bytes((pool / "q1.png").read_bytes()[:40])
        return f"{train}:1: image 'q1.png': not a readable image: "
    if how == "no split":
        (pool / "test.jsonl").unlink()
        return f"{pool}: has no split test; it has train (add test.jsonl, or name another split in stages.evaluate)"
    (pool / "corpus.jsonl").write_text('{"title": "a page"}')
    return f"{pool}/corpus.jsonl:1: text: Field required (correct or remove the line)"


@pytest.mark.parametrize("how", ["torn line", "id twice", "missing image", "torn image", "no split", "no text"])
def test_a_faulty_dataset_is_refused_by_file_and_line(harness, how):
    path = harness.write()
    sentence = damage(harness.folder / "pool", how)
    assert refusal(harness, path).startswith(f"gog: {sentence}")


def test_a_bucket_without_credentials_is_refused(harness, monkeypatch):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    kept = {"uri": "s3://bucket/x", "endpointUrl": "http://127.0.0.1:9", "pathStyle": True}
    output = refusal(harness, harness.write(store=kept))
    assert output.startswith("gog: s3://bucket: Unable to locate credentials (set AWS_ACCESS_KEY_ID")


def test_a_bucket_without_a_server_is_refused(harness, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    kept = {"uri": "s3://bucket/x", "endpointUrl": "http://127.0.0.1:9", "pathStyle": True}
    output = refusal(harness, harness.write(store=kept))
    assert output.startswith("gog: s3://bucket at http://127.0.0.1:9: not served within 5 s")


def test_a_missing_model_folder_is_refused(harness):
    path = harness.write(model={"base": "/nonexistent"})
    assert refusal(harness, path) == (
        f"gog: {path}: spec.model.base: no config.json in /nonexistent (name a folder in Hugging Face form)"
    )


def test_a_model_of_another_architecture_is_refused(harness):
    folder = harness.folder / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    path = harness.write(model={"base": str(folder)})
    assert refusal(harness, path) == (
        f"gog: {path}: spec.model.base: model type 'llama' of {folder} is not supported "
        f"(use a model of type {', '.join(base_model.model_types())})"
    )
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2_5_vl"}))
    assert refusal(harness, path).endswith(f"no weights in {folder} (weights are read from *.safetensors only)")


def test_missing_reviews_and_datasets_to_compare_with_are_refused(harness):
    path = harness.write(stages={"sft": {"reviews": "reviews.jsonl"}})
    assert f"{path}: spec.stages.sft.reviews: no file reviews.jsonl" in refusal(harness, path)
    path = harness.write(stages={"curate": {"against": ["s3://bucket/simplevqa", "bench"]}})
    assert f"{path}: spec.stages.curate.against: no file or folder bench" in refusal(harness, path)


def test_missing_demonstrations_are_refused(harness):
    path = harness.write(stages={"sft": {"demonstrations": "mine.zip"}})
    assert f"{path}: spec.stages.sft.demonstrations: no file" in refusal(harness, path)


def test_a_server_that_does_not_answer_is_refused(harness):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        path = harness.write(endpoints={"imageSearch": {"url": url}})
        assert refusal(harness, path) == (
            f"gog: {path}: spec.endpoints.imageSearch.url: nothing answers at {url}: Connection refused (is the server up?)"
        )


def test_traces_without_the_package_are_refused_by_run_and_noted_by_validate(harness, monkeypatch):
    monkeypatch.setattr(otlp, "PACKAGE", "nowhere.to.be.found")
    path = harness.write(traces={"endpoint": "http://collector:4318"})
    sentence = "they need OpenTelemetry, which is not installed (pip install 'gog[traces]')"
    assert refusal(harness, path) == f"gog: {path}: spec.traces: {sentence}"
    code, output = harness.gog("validate", str(path))
    assert code == 0 and output.endswith(f"note: spec.traces: {sentence}\n"), "the manifest may be a cluster's"


def test_a_dataset_that_no_stage_reads_is_not_checked(harness):
    path = harness.write("SFTStage", store={"uri": f"file://{harness.folder}/store"})
    (harness.folder / "pool" / "train.jsonl").write_text("no matter")
    assert harness.gog("run", str(path))[0] == 0


VLLM = {"stages": {"grpo": {"engine": "vllm"}}}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"endpoints": {"policy": {"runtime": "vllm", "url": "http://a"}}}, "url names an existing server"),
        ({"endpoints": {"policy": {"runtime": "vllm", "backend": "m:f"}}}, "backend is of gog's own server"),
        (
            {
                "stages": {"grpo": {"engine": "vllm", "deterministic": True}},
                "endpoints": {"policy": {"runtime": "vllm"}},
            },
            "spec.stages.grpo.deterministic: vLLM repeats no result bit for bit: remove deterministic",
        ),
        (VLLM, "a stage with engine: vllm needs a server: url: http://…, or runtime: vllm"),
    ],
)
def test_a_policy_server_that_contradicts_itself_or_is_missing_is_refused(harness, spec, words):
    assert words in refusal(harness, harness.write(**spec))


def test_a_vllm_that_gog_cannot_start_is_refused_before_the_run_begins(harness, monkeypatch):
    monkeypatch.setenv("GOG_VLLM_PROGRAM", "/nowhere/bin/vllm --verbose")
    said = refusal(harness, harness.write(**VLLM, endpoints={"policy": {"runtime": "vllm"}}))
    assert "endpoints.policy.runtime: no program /nowhere/bin/vllm (" in said
    assert "GOG_VLLM_PROGRAM=/folder/bin/vllm" in said


def test_a_vllm_without_a_gpu_is_refused_for_a_model_with_experts(monkeypatch):
    policy = settings.PolicyEndpointSpec(runtime="vllm")
    monkeypatch.setenv("GOG_VLLM_PROGRAM", sys.executable)
    monkeypatch.setattr(preflight, "GPUS", ())
    with pytest.raises(UserError, match=r"policy.runtime: on a CPU, vLLM dies .* \(sample with engine: transformers"):
        preflight.check_vllm(policy, settings.ModelSpec(base="hf://Qwen/Qwen3-VL-30B-A3B-Instruct"), "policy")
    preflight.check_vllm(policy, settings.ModelSpec(base="hf://Qwen/Qwen3-VL-8B-Instruct"), "policy")
    monkeypatch.setattr(preflight, "GPUS", ("null",))
    preflight.check_vllm(policy, settings.ModelSpec(base="hf://Qwen/Qwen3-VL-30B-A3B-Instruct"), "policy")


def test_every_replica_of_a_policy_must_answer(harness):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        urls = f"http://127.0.0.1:{listener.getsockname()[1]},http://127.0.0.1:1"
        said = refusal(harness, harness.write(**VLLM, endpoints={"policy": {"url": urls}}))
    assert "endpoints.policy.url: nothing answers at http://127.0.0.1:1: Connection refused" in said


def test_a_strict_replay_needs_no_tool_server_but_the_policy_s(harness):
    dead = "http://127.0.0.1:1"
    cache = {"mode": "replay-strict", "path": "answers.sqlite"}
    path = harness.write(
        **VLLM, endpoints={"imageSearch": {"url": dead}, "policy": {"url": dead}}, tools={"cache": cache}
    )
    assert f"endpoints.policy.url: nothing answers at {dead}" in refusal(harness, path)


def test_a_model_of_the_hub_that_lacks_files_is_refused(harness, monkeypatch):
    folder = base_folders.write(harness.folder / "source", shards=2)
    (folder / "model-00002-of-00002.safetensors").unlink()
    path = harness.write(model={"base": "hf://org/model", "family": "tiny"})
    with hub_server.serving(folder) as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        assert refusal(harness, path) == (
            "gog: hf://org/model: has no shard 2 of 2 (1 missing) (upload the whole model)"
        )
        served.status = 503
        sentence = refusal(harness, path)
        assert sentence.startswith(f"gog: {path}: spec.model.base: Hugging Face Hub: hf://org/model: ")
        assert sentence.endswith("(check the network and HF_ENDPOINT, and try again)")  # nothing of a stage's attempts


def test_a_benchmark_of_another_size_is_refused_before_the_run(harness):
    path = harness.write(stages={"evaluate": {"benchmarks": [{"split": "test"}, {"split": "mmsearch"}]}})
    pool = harness.folder / "pool"
    (pool / "mmsearch.jsonl").write_text((pool / "test.jsonl").read_text())
    assert "data: mmsearch.jsonl: 1 questions, and mmsearch has 171" in refusal(harness, path)


# ---- Questions that are trained on and evaluated


def share(pool: Path, split: str = "test", **changes) -> None:
    """Gives a split a line of `train`, with changes."""
    line = json.loads((pool / "train.jsonl").read_text()) | {"id": "t1"} | changes
    (pool / f"{split}.jsonl").write_text(json.dumps(line))


def test_a_question_that_is_trained_on_and_evaluated_is_refused_by_run_and_validate(harness):
    path = harness.write()
    share(harness.folder / "pool")
    sentence = refusal(harness, path)
    assert sentence == (
        f"gog: {path}: spec.data: question 'q1' of train is 't1' of test: the same question about the same image "
        "(remove it from train, or evaluate on another split)"
    )
    code, output = harness.gog("validate", str(path))
    assert code == 2 and output.strip() == sentence


def test_the_splits_of_benchmarks_are_compared_and_others_are_not(harness):
    own = harness.write(stages={"evaluate": {"benchmarks": [{"split": "test"}, {"split": "bench"}]}})
    share(harness.folder / "pool", "bench")
    assert "question 'q1' of train is 't1' of bench" in refusal(harness, own)
    assert harness.gog("validate", str(harness.write()))[0] == 0


def test_a_question_that_is_like_an_evaluated_one_is_a_note_of_run_and_validate(harness):
    path = harness.write()
    share(harness.folder / "pool", question="where?")
    note = "note: question 'q1' of train is 't1' of test: the same image\n"
    assert note in harness.gog("validate", str(path))[1]
    code, output = harness.gog("run", str(path))
    assert code == 0 and output.startswith(note)


def test_an_evaluation_of_the_training_questions_is_a_note(harness):
    path = harness.write(stages={"evaluate": {"split": "train"}})
    code, output = harness.gog("validate", str(path))
    assert code == 0 and "spec.data: evaluate asks train, so its figures show what was remembered\n" in output


def test_a_run_that_does_not_learn_from_train_may_evaluate_its_questions(harness):
    path = harness.write("EvaluateStage", store={"uri": f"file://{harness.folder}/store"})
    share(harness.folder / "pool")
    assert harness.gog("validate", str(path))[0] == 0


# ---- Sizes of benchmarks


FVQA = {"stages": {"evaluate": {"benchmarks": [{"split": "fvqa_test", "name": "FVQA"}]}}}


@pytest.mark.parametrize("uri", [False, True])
def test_a_benchmark_of_another_size_is_refused_by_validate_as_by_run(harness, uri):
    path = harness.write(**FVQA)
    pool = harness.folder / "pool"
    (pool / "fvqa_test.jsonl").write_text((pool / "test.jsonl").read_text())
    if uri:
        path.write_text(path.read_text().replace("path: pool", f"uri: file://{pool}"))
    sentence = refusal(harness, path)
    assert f"gog: {path}: spec.data: fvqa_test.jsonl: 1 questions, and FVQA has 1,800 (import all of it;" in sentence
    code, output = harness.gog("validate", str(path))
    assert code == 2 and output.strip() == sentence


def test_a_benchmark_of_another_size_is_refused_in_another_format(harness):
    path = harness.write(stages={"evaluate": {"benchmarks": [{"split": "test", "name": "FVQA"}]}})
    for split in ("train", "test"):
        file = harness.folder / "pool" / f"{split}.jsonl"
        file.write_text(file.read_text().replace("answers", "answer"))
    path.write_text(path.read_text().replace("path: pool", "path: pool\n    format: plain"))
    assert "data: test.jsonl: 1 questions, and FVQA has 1,800" in harness.gog("validate", str(path))[1]


def test_a_part_of_a_public_benchmark_under_its_name_is_refused_and_under_another_it_is_not(harness):
    benchmark = {"split": "test", "name": "FVQA"}
    path = harness.write(stages={"evaluate": {"benchmarks": [benchmark], "questions": 1}})
    words = "spec.stages.evaluate.questions: answers a part of a public benchmark under its name"
    assert words in refusal(harness, path) and words in harness.gog("validate", str(path))[1]
    renamed = {"benchmarks": [{**benchmark, "name": "fvqa-first"}], "questions": 1}
    assert harness.gog("validate", str(harness.write(stages={"evaluate": renamed})))[0] == 0
