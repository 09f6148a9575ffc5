"""`gog validate` checks a base model and a dataset that are on this machine, and says what it did not check."""

from __future__ import annotations

import json

import PIL.Image
import pytest
import yaml
from huggingface_hub import constants
from support import base_folders, hub_server

from gog_console import cli, loss_names
from gog_console.commands import run
from gog_operator.api import manifest


@pytest.fixture
def validate(tmp_path, capsys, monkeypatch):
    """validate(spec, *arguments): exit code and output."""
    monkeypatch.chdir(tmp_path)

    def run(spec, *arguments):
        body = {"apiVersion": "gog.dev/v1alpha1", "kind": "GoGRun", "metadata": {"name": "run"}, "spec": spec}
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(body))
        code = cli.main(["validate", "run.yaml", *arguments])
        return code, "".join(capsys.readouterr())

    return run


def test_a_base_model_in_a_folder_of_this_machine_is_checked(validate, tmp_path):
    folder = base_folders.write(tmp_path / "base")
    spec = {"model": {"base": "base"}, "data": {"world": {}}}
    assert validate(spec)[0] == validate({**spec, "model": {"base": folder.as_uri()}})[0] == 0
    (folder / "preprocessor_config.json").unlink()
    code, output = validate(spec)
    assert code == 2 and output == (
        "gog: run.yaml: spec.model.base: no image processor in base "
        "(it needs preprocessor_config.json or processor_config.json)\n"
    )


def test_a_folder_that_is_not_here_is_a_note_because_the_manifest_may_be_for_elsewhere(validate):
    code, output = validate({"model": {"base": "/models/m"}, "data": {"world": {}}})
    assert code == 0
    assert "note: spec.model.base: there is no folder /models/m here, so the model is not checked\n" in output


def test_a_base_model_elsewhere_is_checked_only_when_asked(validate, tmp_path, monkeypatch):
    folder = base_folders.write(tmp_path / "source")
    spec = {"model": {"base": "hf://org/model@v9"}, "data": {"world": {}}}
    code, output = validate(spec)
    assert code == 0 and "note: spec.model.base: hf://org/model@v9 is checked with --remote, and by the stage" in output
    with hub_server.serving(folder) as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        code, output = validate(spec, "--remote")
        assert code == 2 and output.startswith("gog: hf://org/model@v9: there is no revision 'v9'")
        assert validate({**spec, "model": {"base": "hf://org/model"}}, "--remote")[0] == 0


def test_a_dataset_of_the_hub_is_listed_only_when_asked(validate, tmp_path, monkeypatch):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "train.jsonl").write_text("{}")
    spec = {"model": {"base": "tiny"}, "data": {"uri": "hf://datasets/org/pool@v9"}}
    code, output = validate(spec)
    assert code == 0 and "note: spec.data.uri: hf://datasets/org/pool@v9 is checked with --remote, and by the" in output
    with hub_server.serving(tmp_path / "source", "org/pool", "datasets") as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        code, output = validate(spec, "--remote")
        assert code == 2 and output.startswith("gog: hf://datasets/org/pool@v9: there is no revision 'v9'")
        assert validate({**spec, "data": {"uri": "hf://datasets/org/pool"}}, "--remote")[0] == 0
        code, output = validate({**spec, "data": {"uri": "hf://datasets/org/pool/more"}}, "--remote")
        assert code == 2 and "hf://datasets/org/pool/more: there is no file of a dataset in more" in output
        served.status = 503
        code, output = validate({**spec, "data": {"uri": "hf://datasets/org/pool"}}, "--remote")
        assert code == 2 and "spec.data.uri: Hugging Face Hub: " in output and output.endswith("and try again)\n")


def test_images_of_a_dataset_on_this_machine_are_checked_by_the_limits_of_the_model(validate, tmp_path):
    base_folders.write(tmp_path / "base")
    (tmp_path / "pool").mkdir()
    line = {"id": "q1", "image": "thin.png", "question": "?", "answers": ["x"]}
    for split in ("train", "test"):
        (tmp_path / "pool" / f"{split}.jsonl").write_text(json.dumps(line) + "\n")
    PIL.Image.new("RGB", (1600, 7)).save(tmp_path / "pool" / "thin.png")
    code, output = validate({"model": {"base": "base"}, "data": {"path": "pool"}})
    assert code == 2
    assert (
        "pool/train.jsonl:1: image 'thin.png': 1600 x 7 pixels: the model accepts an aspect ratio of at most 200"
        in output
    )


@pytest.mark.parametrize("base", ["hf://model", "gs://bucket/model", "file://relative", "https://host/model"])
def test_another_form_of_address_is_refused(validate, base):
    code, output = validate({"model": {"base": base}, "data": {"world": {}}})
    assert code == 2 and "spec.model.base: should be tiny, a folder, s3://bucket/prefix, file:///folder" in output


def test_demonstrations_of_this_machine_are_checked(validate, tmp_path):
    base_folders.write(tmp_path / "base")
    spec = {"model": {"base": "base"}, "data": {"world": {}}, "stages": {"sft": {"demonstrations": "mine.zip"}}}
    code, output = validate(spec)
    assert code == 0
    assert "note: spec.stages.sft.demonstrations: there is no mine.zip here, so they are not checked\n" in output
    (tmp_path / "mine.zip").write_text("no archive")
    code, output = validate(spec)
    assert code == 2 and output.startswith("gog: mine.zip: not a trajectory archive")


# ---- servers


WORLD = {"model": {"base": "tiny"}, "data": {"world": {}}}


def with_endpoints(**endpoints):
    return {**WORLD, "endpoints": endpoints}


@pytest.mark.parametrize(
    "spec",
    [
        with_endpoints(judge={"url": "https://user:s3cret@judge"}),
        with_endpoints(judge={"url": "https://judge/v1?api_key=s3cret"}),
        {**WORLD, "tools": {"judge": {"fallback": {"url": "https://judge?key=s3cret"}}}},
        {
            **WORLD,
            "stages": {"evaluate": {"policies": ["endpoint"], "endpoint": {"url": "https://s3cret@m", "model": "m"}}},
        },
        {**WORLD, "store": {"uri": "s3://b/p", "endpointUrl": "https://s3cret@store"}},
    ],
)
def test_a_secret_in_an_address_is_refused_and_not_printed(validate, spec):
    code, output = validate(spec)
    assert code == 2 and "s3cret" not in output
    assert (
        "an address with a user, a password or a query (write the address alone; a key comes from secretName" in output
    )


@pytest.mark.parametrize(
    ("role", "endpoint", "message"),
    [
        (
            "textSearch",
            {"backend": "brave", "options": {"raeder": {}}},
            "options.raeder: unknown option (did you mean reader? options of brave: language, country, url,",
        ),
        (
            "textSearch",
            {"backend": "serpapi", "options": {"reader": {"knd": "jina"}}},
            "options.reader.knd: unknown option (did you mean kind? options of reader: kind, candidates, parallel,",
        ),
        (
            "textSearch",
            {"backend": "brave", "options": {"reader": {"kind": "gina"}, "price": -1}},
            "2 problems\n  spec.endpoints.textSearch.options.price: Input should be greater than or equal to 0",
        ),
        (
            "imageSearch",
            {"backend": "serpapi-lens", "options": {"store": {"uri": "s3://b", "regoin": "x"}}},
            "options.store.regoin: unknown option (did you mean region? options of store: uri,",
        ),
        (
            "imageSearch",
            {"backend": "serpapi-lens"},
            "options.store: Field required (options of serpapi-lens: store, type,",
        ),
        ("judge", {"options": {"strict": True}}, "options.strict: unknown option (options of world: none)"),
        (
            "judge",
            {"backend": "mtach"},
            "spec.endpoints.judge.backend: no back end 'mtach' (did you mean match?; or module:",
        ),
        ("grounding", {"options": {"data": "x"}}, "options.data: unknown option (options of world: "),
    ],
)
def test_a_back_end_and_its_options_are_checked_by_name_type_and_place(validate, role, endpoint, message):
    code, output = validate(with_endpoints(**{role: endpoint}))
    assert code == 2 and message in output


def test_options_that_fit_are_accepted_without_a_note(validate):
    reader = {"kind": "jina", "key_variable": "JINA_API_KEY"}
    code, output = validate(
        with_endpoints(textSearch={"backend": "brave", "options": {"language": "de", "reader": reader}})
    )
    assert code == 0 and "options" not in output


def test_a_back_end_that_is_not_installed_here_is_a_note(validate):
    code, output = validate(with_endpoints(judge={"backend": "my_judges.fast:Judge", "options": {"a": 1}}))
    assert code == 0
    assert (
        "note: spec.endpoints.judge: no back end 'my_judges.fast:Judge': No module named 'my_judges', so its" in output
    )


def test_options_of_a_vllm_are_not_those_of_a_back_end(validate):
    code, output = validate(with_endpoints(policy={"runtime": "vllm", "options": {"max-model-len": 4096}}))
    assert code == 0 and "options" not in output


def test_paths_in_options_become_absolute_and_other_names_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wiki").mkdir()
    for role, backend, options, expected in (
        ("textSearch", "tantivy", {"documents": "wiki"}, {"documents": str(tmp_path / "wiki")}),
        ("textSearch", "tantivy", {"documents": "missing"}, {"documents": "missing"}),
        (
            "imageSearch",
            "embeddings",
            {"index": "s3://b/i", "images": "wiki"},
            {"index": "s3://b/i", "images": str(tmp_path / "wiki")},
        ),
        ("textSearch", "brave", {"language": "wiki"}, {"language": "wiki"}),
    ):
        endpoint = {"backend": backend, "options": options}
        assert (
            run.absolute(gogrun(with_endpoints(**{role: endpoint}))).spec.endpoints.model_dump(by_alias=True)[role][
                "options"
            ]
            == expected
        )


def test_an_address_stays_an_address_while_a_local_path_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for given, expected in (
        ("s3://b/answers", "s3://b/answers"),
        ("file:///srv/answers", "file:///srv/answers"),
        ("answers.sqlite", str(tmp_path / "answers.sqlite")),
    ):
        cache = {"mode": "record", "path": given}
        assert run.absolute(gogrun({**WORLD, "tools": {"cache": cache}})).spec.tools.cache.path == expected


def gogrun(spec):
    return manifest.check(
        {"apiVersion": "gog.dev/v1alpha1", "kind": "GoGRun", "metadata": {"name": "run"}, "spec": spec},
        where="run.yaml",
    )


# ---- losses

TINY = {"model": {"base": "tiny"}, "data": {"world": {}}}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"stages": {"grpo": {"loss": "dapoo"}}}, "spec.stages.grpo.loss: no loss 'dapoo' (did you mean dapo?"),
        ({"stages": {"grpo": {"loss": "parts"}}}, "spec.stages.grpo.loss: no loss 'parts' ("),
        (
            {"arms": [{"name": "b", "set": {"stages.grpo.loss": "gsp"}}]},
            "spec.arms.0.set.stages.grpo.loss: no loss 'gsp' (did you mean gspo?",
        ),
    ],
)
def test_a_loss_that_does_not_exist_is_refused_before_anything_runs(validate, spec, message):
    code, output = validate({**TINY, **spec})
    assert code == 2 and message in output


@pytest.mark.parametrize("loss", ["grpo", "reinforce_plus_plus", "mine:loss"])
def test_a_loss_of_the_recipes_or_of_another_module_is_accepted(validate, loss):
    assert validate({**TINY, "stages": {"grpo": {"loss": loss}}})[0] == 0


def test_without_the_recipes_and_without_the_stage_no_loss_is_checked(validate, monkeypatch):
    unknown = {**TINY, "stages": {"grpo": {"loss": "dapoo"}}}
    assert validate({**unknown, "stages": {**unknown["stages"], "skip": ["grpo"]}})[0] == 0
    monkeypatch.setattr(loss_names, "PACKAGE", "not_installed")
    assert validate(unknown)[0] == 0


REFILL = {"loss": "reinforce_plus_plus", "maxOversampling": 2}


@pytest.mark.parametrize(
    ("spec", "where"),
    [
        ({"stages": {"grpo": REFILL}}, "spec.stages.grpo.maxOversampling"),
        (
            {
                "stages": {"grpo": {"maxOversampling": 2}},
                "arms": [{"name": "b", "set": {"stages.grpo.loss": REFILL["loss"]}}],
            },
            "spec.arms.0.set.stages.grpo.maxOversampling",
        ),
        ({"stages": {"grpo": {"advantages": "batch", "maxOversampling": 2}}}, "spec.stages.grpo: maxOversampling"),
    ],
)
def test_a_refill_of_groups_that_all_carry_a_signal_is_refused_before_anything_runs(validate, spec, where):
    code, output = validate({**TINY, **spec})
    assert code == 2 and where in output and "nothing to refill" in output


@pytest.mark.parametrize("grpo", [REFILL | {"advantages": "group_batch"}, REFILL | {"maxOversampling": 1}])
def test_a_loss_with_advantages_over_the_step_is_accepted_without_a_refill(validate, grpo):
    assert validate({**TINY, "stages": {"grpo": grpo}})[0] == 0


NO_SHARE = "overlongPenalty has no effect, because overlongShare is 0"
NO_KL = "klEstimator has no effect, because klCoef is 0"
NO_CLIP = "clip has no effect, because updatesPerRollout is 1"
NO_CLIP_HIGH = "clipHigh has no effect, because updatesPerRollout is 1"


@pytest.mark.parametrize(
    ("grpo", "notes"),
    [
        ({"overlongPenalty": 0.5}, [NO_SHARE]),
        ({"overlongPenalty": 0.5, "loss": "dapo", "overlongShare": 0}, [NO_SHARE]),
        ({"klEstimator": "k1", "klCoef": 0}, [NO_KL]),
        ({"klEstimator": "k1", "klCoef": 0, "overlongPenalty": 1}, [NO_SHARE, NO_KL]),
        ({"overlongPenalty": 0.5, "loss": "dapo"}, []),
        ({"overlongPenalty": 0.5, "overlongShare": 0.1}, []),
        ({"overlongPenalty": 0.5, "loss": "mine:loss"}, []),
        ({"klEstimator": "k1"}, []),
        ({"klCoef": 0}, []),
        ({"clip": 0.1, "clipHigh": 0.3}, [NO_CLIP, NO_CLIP_HIGH]),
        ({"clip": 0.1, "updatesPerRollout": 2}, []),
        ({"clip": 0.1, "loss": "mine:loss"}, []),
    ],
)
def test_a_setting_without_an_effect_is_a_note(validate, grpo, notes):
    code, output = validate({**TINY, "stages": {"grpo": grpo}})
    found = [line for line in output.splitlines() if "no effect" in line]
    assert code == 0 and len(found) == len(notes)
    assert all(line.startswith(f"note: spec.stages.grpo: {note}") for line, note in zip(found, notes, strict=True))


def test_a_setting_that_an_arm_leaves_without_an_effect_is_a_note(validate):
    grpo, arm = {"klEstimator": "k1"}, {"name": "b", "set": {"stages.grpo.klCoef": 0}}
    code, output = validate({**TINY, "stages": {"grpo": grpo}, "arms": [arm]})
    assert code == 0 and f"note: spec.arms.0.set.stages.grpo: {NO_KL}" in output


def test_without_the_recipes_nothing_is_said_about_the_share_of_a_loss(validate, monkeypatch):
    monkeypatch.setattr(loss_names, "PACKAGE", "not_installed")
    code, output = validate({**TINY, "stages": {"grpo": {"loss": "dapo", "overlongPenalty": 0.5}}})
    assert code == 0 and "no effect" not in output
