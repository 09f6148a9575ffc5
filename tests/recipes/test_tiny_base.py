"""The tiny base: its vocabulary, its folder in Hugging Face form, its pre-training."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from omegaconf import DictConfig, OmegaConf

from gog import actions, errors, prompts
from gog.trajectory import Candidate
from gog_recipes import world
from gog_recipes.world import (
    batches,
    drawing,
    entities,
    generate,
    muon,
    pretrain_tasks,
    scenes,
    tiny_base,
    tiny_model,
    vocabulary,
)

CONFIG = Path(tiny_base.__file__).parents[1] / "configs" / "tiny" / "tiny_base.yaml"
TASKS = ("caption", "crops", "reading", "lookup", "repeating")
TURNS = (
    "<think>one</think><img_search><img></img_search>",
    "<think>several</think><img_search>red ring</img_search>",
    "<think>red ring 2</think><img_search>#2</img_search>",
    "<think>blue bar</think><img_search>#1,#3</img_search>",
    "<think>t034</think><text_search>t034</text_search>",
    "<think>height n33</think><answer>n33</answer>",
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return vocabulary.build_tokenizer()


@pytest.fixture(scope="module")
def shipped() -> Any:
    return transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(world.TINY, local_files_only=True).eval()


def make_tasks(split: entities.Split = "train") -> pretrain_tasks.PretrainTasks:
    return pretrain_tasks.PretrainTasks(random.Random(3), entities.build(7), split, pool=100)


def shown_candidates(count: int) -> str:
    shown = [Candidate(number=n, box=(0, 0, 9, 9), score=0.5) for n in range(1, count + 1)]
    return prompts.candidates(shown, style="terse")


def conversation() -> str:
    bodies = ["name t034", shown_candidates(4), "founded n12 , height n33 , price n05"]
    bodies += [prompts.NO_MATCH["terse"], prompts.TOOL_FAILED["terse"], prompts.NO_SUCH_CANDIDATE["terse"]]
    observed = "".join(turn + prompts.observation(body) for turn, body in zip(TURNS, bodies, strict=True))
    return prompts.prompt("what is the height of the red ring ?", style="terse") + observed


def settings(tmp_path: Path, **changes: object) -> DictConfig:
    small = {"output_dir": str(tmp_path / "tiny"), "steps": 9, "batch_size": 8, "pool": 60, "warmup_steps": 1}
    loaded = OmegaConf.merge(OmegaConf.load(CONFIG), small, {"measured_batches": 1}, changes)
    assert isinstance(loaded, DictConfig)
    return loaded


def test_every_tag_that_the_shipped_model_knows_is_one_of_the_agents() -> None:
    assert set(vocabulary.TAGS) <= set(actions.CONTROL_TAGS)


def test_no_word_of_an_episode_is_unknown(tokenizer: Any) -> None:
    assert tokenizer.unk_token_id not in tokenizer(conversation()).input_ids


def test_every_question_of_the_world_is_made_of_known_words(tokenizer: Any) -> None:
    rng = random.Random(0)
    drawn = [scenes.draw_case(rng, entities.build(8), split) for split in generate.SPLITS for _ in range(200)]
    ids = tokenizer([f"{case.question} {case.answer}" for case in drawn]).input_ids
    assert not any(tokenizer.unk_token_id in row for row in ids)


def test_decoding_joins_words_with_single_spaces_and_is_inverted_by_encoding(tokenizer: Any) -> None:
    ids = tokenizer(conversation()).input_ids
    text = tokenizer.decode(ids)
    assert text == " ".join(tokenizer.convert_ids_to_tokens(ids)) and tokenizer(text).input_ids == ids


@pytest.mark.parametrize("turn", TURNS)
def test_a_decoded_turn_parses_to_the_same_action(tokenizer: Any, turn: str) -> None:
    decoded = actions.parse_turn(tokenizer.decode(tokenizer(turn).input_ids))
    action = actions.parse_turn(turn).action
    assert decoded.well_formed
    if isinstance(action, actions.Gaze | actions.Glance):
        assert decoded.action == action
    assert type(decoded.action) is type(action)


def test_a_choice_is_a_copy_of_the_candidates_number(tokenizer: Any) -> None:
    assert tokenizer.tokenize("<img_search>#2</img_search>") == ["<img_search>", "#", "2", "</img_search>"]


def test_closing_tags_are_one_token_each(tokenizer: Any) -> None:
    assert all(len(tokenizer(tag).input_ids) == 1 for tag in (*actions.CONTROL_TAGS, prompts.TURN_END))


def test_the_chat_template_gives_the_prompt(tokenizer: Any) -> None:
    content = [{"type": "image"}, {"type": "text", "text": "what colour is the ring ?"}]
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    assert chat == prompts.prompt("what colour is the ring ?", style="terse")


def test_the_shipped_folder_loads_without_a_hub(monkeypatch: pytest.MonkeyPatch, shipped: Any) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert transformers.AutoConfig.from_pretrained(world.TINY).model_type == "qwen2_5_vl"
    tokenizer = transformers.AutoTokenizer.from_pretrained(world.TINY)
    assert tokenizer.convert_ids_to_tokens(list(range(len(tokenizer)))) == vocabulary.words()
    assert shipped.dtype == torch.float32
    assert shipped.lm_head.weight is shipped.model.language_model.embed_tokens.weight


def test_the_shipped_folder_is_what_the_code_builds(shipped: Any) -> None:
    built = tiny_model.build_model(0)
    assert built.config.get_text_config().to_dict() == shipped.config.get_text_config().to_dict()
    assert built.config.vision_config.to_dict() == shipped.config.vision_config.to_dict()
    assert shipped.generation_config.suppress_tokens == built.generation_config.suppress_tokens
    assert (world.TINY / "model.safetensors").stat().st_size < 3_000_000


def test_a_scene_is_sixteen_image_tokens_and_a_crop_is_one() -> None:
    processor = transformers.AutoImageProcessor.from_pretrained(world.TINY, backend="pil")
    images = [np.zeros((side, side, 3), np.uint8) for side in (drawing.SIDE, drawing.CELL)]
    grids = processor(images, return_tensors="np").image_grid_thw
    assert [int(grid.prod()) // tiny_model.MERGE**2 for grid in grids] == [16, 1]


@pytest.mark.parametrize("name", TASKS)
def test_pieces_of_an_example_tokenize_as_the_whole_example(tokenizer: Any, name: str) -> None:
    tasks = make_tasks()
    rows = [getattr(tasks, name)() for _ in range(20)]
    batch = batches.collate(rows, tokenizer)
    for ids, row in zip(batch.ids, rows, strict=True):
        whole = tokenizer(" ".join(batches._spread(row))).input_ids
        assert ids[: len(whole)].tolist() == whole and (ids[len(whole) :] == tokenizer.pad_token_id).all()


@pytest.mark.parametrize("name", TASKS)
def test_examples_use_known_words_only(tokenizer: Any, name: str) -> None:
    tasks = make_tasks()
    ids = batches.collate([getattr(tasks, name)() for _ in range(50)], tokenizer).ids
    assert tokenizer.unk_token_id not in ids


def test_examples_have_the_frame_of_an_episode() -> None:
    tasks = make_tasks()
    captions, crops = tasks.caption().pieces[0][0], tasks.crops().pieces[0][0]
    assert captions in {prompts.prompt(q, style="terse") for q in ("what is", "read")} or "what colour is" in captions
    assert crops in {prompts.observation(shown_candidates(n)).removeprefix(prompts.TURN_END) for n in (2, 3, 4)}


def test_no_task_but_repeating_trains_a_tag() -> None:
    tasks = make_tasks()
    rows = [getattr(tasks, name)() for name in TASKS if name != "repeating" for _ in range(50)]
    targets = " ".join(text for row in rows for text, trained in row.pieces if trained)
    assert not any(tag in targets for tag in actions.CONTROL_TAGS)


@pytest.mark.parametrize("name", ["caption", "crops", "reading"])
def test_the_forward_pass_of_training_equals_that_of_the_library(tokenizer: Any, shipped: Any, name: str) -> None:
    tasks = make_tasks()
    rows = [getattr(tasks, name)() for _ in range(6)]
    batch = batches.collate(rows, tokenizer)
    attended = (batch.ids != tokenizer.pad_token_id).int()
    images: dict[str, Any] = {}
    if batch.patches is not None:
        pixels = [image.pixels for row in rows for image in row.images]
        images = dict(tiny_model.build_image_processor()(pixels, return_tensors="pt"))
        images["mm_token_type_ids"] = (batch.ids == shipped.config.image_token_id).int()
        assert torch.equal(images["pixel_values"], batch.patches)
    with torch.no_grad():
        theirs = shipped(input_ids=batch.ids, attention_mask=attended, use_cache=False, **images).logits
        ours = shipped.model(
            input_ids=batch.ids,
            pixel_values=batch.patches,
            image_grid_thw=batch.grids,
            position_ids=batch.positions,
            use_cache=False,
        ).last_hidden_state
    torch.testing.assert_close(shipped.lm_head(ours)[attended.bool()], theirs[attended.bool()], rtol=0, atol=1e-5)


def test_muon_brings_singular_values_near_one() -> None:
    torch.manual_seed(0)
    for shape in ((2, 24, 12), (2, 12, 24)):
        values = torch.linalg.svdvals(muon.orthogonalize(torch.randn(shape), 5))
        assert values.min() > 0.5 and values.max() < 1.3


def test_a_few_steps_lower_the_loss_and_only_the_end_writes(tmp_path: Path, shipped: Any) -> None:
    recipe = tiny_base.TinyBaseRecipe(settings(tmp_path))
    recipe.setup()
    batch = recipe.draw("caption")
    before = float(recipe.loss(batch)[0].detach())
    recipe.train()
    assert float(recipe.loss(batch)[0].detach()) < 0.9 * before
    assert list((tmp_path / "tiny").iterdir()) == []
    recipe.save_checkpoint()
    recipe.cleanup()
    written = {path.name for path in (tmp_path / "tiny").iterdir()}
    assert written == {path.name for path in world.TINY.iterdir()}
    again = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path / "tiny", local_files_only=True)
    assert torch.equal(again.lm_head.weight, recipe.model.lm_head.weight)


def test_the_same_seed_trains_the_same_model(tmp_path: Path) -> None:
    weights = []
    for _ in range(2):
        recipe = tiny_base.TinyBaseRecipe(settings(tmp_path, steps=3))
        recipe.setup()
        recipe.train()
        weights.append(recipe.model.lm_head.weight.detach().clone())
    assert torch.equal(*weights)


def test_a_folder_that_cannot_be_written_is_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "tiny").write_text("a file, not a folder")
    with pytest.raises(errors.UserError, match="cannot write the model"):
        tiny_base.TinyBaseRecipe(settings(tmp_path)).setup()


def test_the_shipped_base_generalizes_to_unseen_entities(tmp_path: Path, shipped: Any) -> None:
    recipe = tiny_base.TinyBaseRecipe(settings(tmp_path, batch_size=32, measured_batches=2))
    recipe.setup()
    recipe.model = shipped
    assert min(recipe.measure().values()) > 0.97
