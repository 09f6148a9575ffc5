"""SFT on demonstrations of which some cannot be used: those are skipped by name, the others are learned from."""

from __future__ import annotations

import json
from importlib import resources

import numpy as np
import pytest

from gog import metrics, store, trajectory_zip
from gog.errors import UserError
from gog.images import Image
from gog.spec import SFTConfig
from gog_recipes.runtime import config
from gog_recipes.sft import SFTRecipe

FLAT = Image(np.zeros((7, 1600, 3), np.uint8))


@pytest.fixture(scope="module")
def sample():
    """Twelve demonstrations of gog's own and their images."""
    archive = trajectory_zip.Archive(resources.files("gog_recipes.world") / "sample.zip")
    items = archive.trajectories()[:12]
    return items, {image: archive.image(image) for item in items for image in trajectory_zip.shown(item)}


def recipe(root, items, images, **settings):
    trajectory_zip.write(root / "mine.zip", items, images)
    values = {
        "model": {"base": "tiny"},
        "data": {"path": str(root)},
        "store": {"uri": f"file://{root}/store"},
        "demonstrations": str(root / "mine.zip"),
        "batch_size": 2,
        "max_steps": 1,
        "epochs": 1,
        "unverified": "keep",
        "eval_share": 0,
    }
    return SFTRecipe(config.typed(SFTConfig, values | settings))


def flattened(item):
    """The same demonstration about an image that the model cannot take."""
    segments = tuple(
        segment.model_copy(update={"images": tuple(FLAT.hash for _ in segment.images)}) for segment in item.segments
    )
    return item.model_copy(update={"id": "flat", "image": FLAT.hash, "segments": segments})


def test_demonstrations_that_cannot_be_used_are_skipped_by_name_and_counted(sample, tmp_path, capsys):
    items, images = sample
    torn = items[1].model_copy(update={"id": "torn", "image": "0" * 32})
    images = {**images, FLAT.hash: FLAT}
    made = recipe(tmp_path, [*items[2:], torn, flattened(items[0])], images, stage="sft-skips")
    made.setup()
    made.train()
    log = capsys.readouterr().out
    assert "sft-skips: demonstration torn is skipped: " in log and "is missing" in log
    assert "sft-skips: demonstration flat is skipped: image: an image of 1600 x 7 pixels" in log
    assert len(made.rows) == 10
    assert metrics.REGISTRY.get_sample_value("gog_stage_skipped_total", {"stage": "sft-skips"}) == 2
    meta = store.Store(tmp_path / "store").latest("sft-skips").meta
    assert (meta["skipped"], meta["skipped_ids"]) == (2, ["torn", "flat"])


def test_a_demonstration_longer_than_the_limit_is_skipped_not_cut(sample, tmp_path, capsys):
    items, images = sample
    whole = recipe(tmp_path, items, images)
    whole.setup()
    lengths = sorted(sum(len(segment.tokens) for segment in row) for row in whole.rows)
    assert lengths[-1] > lengths[0]
    limited = recipe(tmp_path, items, images, max_tokens=lengths[-1] - 1)
    limited.setup()
    kept = sorted(sum(len(segment.tokens) for segment in row) for row in limited.rows)
    assert kept == [length for length in lengths if length < lengths[-1]]
    assert f"is skipped: {lengths[-1]} tokens, the limit is {lengths[-1] - 1}" in capsys.readouterr().out


def tokenized(sample, tmp_path):
    """A demonstration as a rollout records it, with tokens and the text that these read as; another one; the images."""
    items, images = sample
    made = recipe(tmp_path, items[:2], images)
    made.setup()
    texts = [made.processor.turn_text(each.tokens)[0] for each in made.rows[0] if each.source == "model"]
    turns = [turn.model_copy(update={"text": text}) for turn, text in zip(items[0].turns, texts, strict=True)]
    return items[0].model_copy(update={"segments": made.rows[0], "turns": tuple(turns)}), items[1], images


def test_the_tokens_of_a_trajectory_that_was_sampled_are_learned_as_they_are(sample, tmp_path):
    item, other, images = tokenized(sample, tmp_path)
    turn = item.segments[1].model_copy(update={"logprobs": (-1.0,) * len(item.segments[1].tokens)})
    recorded = item.model_copy(update={"segments": (item.segments[0], turn, *item.segments[2:])})
    made = recipe(tmp_path, [recorded, other], images)
    made.setup()
    assert made.rows[0] == recorded.segments


def other_tokenizer(segment):
    return segment.model_copy(update={"tokens": tuple(token + 1 for token in segment.tokens)})


def other_image_size(segment):
    first = 3  # place of the first image token
    fewer = (*segment.tokens[:first], *segment.tokens[first + 1 :])
    return segment.model_copy(update={"tokens": fewer}) if segment.source == "prompt" else segment


def larger_vocabulary(segment):
    return segment.model_copy(update={"tokens": (*segment.tokens, 151_935)})


@pytest.mark.parametrize("change", [other_tokenizer, other_image_size, larger_vocabulary])
def test_the_tokens_of_another_model_s_trajectory_are_made_again_from_its_text(sample, tmp_path, change):
    item, other, images = tokenized(sample, tmp_path)
    foreign = item.model_copy(update={"segments": tuple(map(change, item.segments))})
    made = recipe(tmp_path, [foreign, other], images)
    made.setup()
    assert made.rows[0] == item.segments


def test_a_demonstration_whose_turn_holds_a_frame_of_the_chat_format_is_skipped_by_name(sample, tmp_path, capsys):
    items, images = sample
    first, *rest = items[0].turns
    framed = first.model_copy(update={"text": first.text + "<|im_start|>"})
    made = recipe(tmp_path, [items[0].model_copy(update={"turns": (framed, *rest)}), *items[1:]], images)
    made.setup()
    assert items[0].id not in made.ids
    reason = "a turn holds <|im_start|>, which the agent never writes"
    assert f"demonstration {items[0].id} is skipped: {reason}" in capsys.readouterr().out


def test_a_stage_in_which_everything_is_skipped_fails_with_the_count(sample, tmp_path):
    items, images = sample
    with pytest.raises(UserError, match=r"0 demonstrations for batches of 2, 12 were skipped.*see the log"):
        recipe(tmp_path, items, images, max_tokens=16).setup()


def test_skipping_changes_nothing_about_the_others(sample, tmp_path):
    items, images = sample
    plain = recipe(tmp_path, items, images)
    plain.setup()
    (tmp_path / "other").mkdir()
    torn = items[0].model_copy(update={"id": "torn", "image": "0" * 32})
    mixed = recipe(tmp_path / "other", [torn, *items], images)
    mixed.setup()
    assert mixed.rows == plain.rows
    assert [mixed.rows[index] for index in mixed.batch(0)] == [plain.rows[index] for index in plain.batch(0)]


def test_what_reviewers_rejected_is_skipped_with_their_note(sample, tmp_path, capsys):
    items, images = sample
    decision = {"trajectory": items[3].id, "decision": "reject", "note": "wrong ring"}
    (tmp_path / "reviews.jsonl").write_text(json.dumps(decision) + "\n")
    made = recipe(tmp_path, items, images, reviews=str(tmp_path / "reviews.jsonl"))
    made.setup()
    assert f"demonstration {items[3].id} is skipped: rejected in review: wrong ring" in capsys.readouterr().out
    assert len(made.rows) == 11 and items[3].id not in made.ids


def test_a_file_of_reviews_that_cannot_be_read_whole_stops_the_stage(sample, tmp_path):
    items, images = sample
    (tmp_path / "reviews.jsonl").write_text('{"trajectory": "a", "decis')
    with pytest.raises(UserError, match=r"reviews\.jsonl:1: not a review decision"):
        recipe(tmp_path, items, images, reviews=str(tmp_path / "reviews.jsonl")).setup()
