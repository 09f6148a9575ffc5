"""A stage's surroundings: whose checkpoints it goes on from."""

from __future__ import annotations

import pytest

from gog import spec
from gog.errors import UserError
from gog_recipes import config
from gog_recipes.stage import Stage


def make_stage(folder, **settings):
    body = {"run": "ours", "model": {"base": "tiny"}, "data": {"path": str(folder)}, **settings}
    return Stage(spec.GRPOConfig.model_validate(body | {"store": {"uri": f"file://{folder}/store"}}))


def commit(stage, step=1):
    weights = stage.workdir / "weights"
    weights.write_text(f"{step}")
    stage.publish(step, {"weights": weights}, meta={}, parents=[], complete=False)


def test_a_stage_goes_on_from_its_own_checkpoint_also_for_longer_and_from_elsewhere(tmp_path):
    commit(make_stage(tmp_path, endpoints={"judge": "http://127.0.0.1:1"}))
    again = make_stage(tmp_path, endpoints={"judge": "http://127.0.0.1:2"}, steps=7, workdir=str(tmp_path / "work"))
    assert again.store.latest("grpo").step == 1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"run": "theirs"}, "checkpoint grpo/1 was made by run 'theirs'"),
        ({"seed": 3, "clip": 0.3}, "checkpoint grpo/1 was made with another seed, clip"),
    ],
)
def test_a_checkpoint_that_is_not_its_own_is_not_gone_on_from(tmp_path, changes, sentence):
    commit(make_stage(tmp_path, **changes))
    with pytest.raises(UserError) as caught:
        make_stage(tmp_path)
    assert str(caught.value) == (
        f"file://{tmp_path}/store: {sentence} (name another store: this stage would go on from what is not its own)"
    )


def test_another_key_in_the_same_store_is_no_obstacle(tmp_path):
    commit(make_stage(tmp_path, run="theirs"))
    assert make_stage(tmp_path, stage="grpo-mine").store.latest("grpo-mine") is None


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("I/O error: No space left on device (os error 28)")]
)
def test_a_full_disk_is_said_in_a_sentence_whichever_library_met_it(error, capsys):
    def write():
        raise error

    with pytest.raises(SystemExit) as caught:
        config.exit_with(write)
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        "error: the stage's files: the disk is full (free space, then `gog resume`; nothing committed is lost)\n"
    )


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        config.exit_with(lambda: print(1 // 0))
