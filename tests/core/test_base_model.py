"""The check of a base model's folder: half a download, or parts of two models, are named before a run starts."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from support import base_folders

from gog import base_model, tensors
from gog.base_model import architectures
from gog.errors import UserError

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4968243304\n"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.fixture
def folder(tmp_path):
    """A base model of two shards."""
    return base_folders.write(tmp_path / "base", shards=2)


def refusal(folder):
    with pytest.raises(UserError) as caught:
        base_model.check(folder)
    return str(caught.value)


def test_a_whole_model_in_shards_is_accepted(folder):
    base_model.check(folder)
    assert base_model.model_type(folder) == "qwen2_5_vl"


def test_a_whole_model_in_one_file_is_accepted_with_either_kind_of_tokenizer(tmp_path):
    folder = base_folders.write(tmp_path)
    base_model.check(folder)
    (folder / "tokenizer.json").unlink()
    base_folders.write_json(folder / "vocab.json", {"a": 0, "b": 1})
    (folder / "merges.txt").write_text("#version: 0.2\n")
    added = {str(number): {"content": token} for number, token in enumerate(base_folders.TOKENS, 2)}
    base_folders.write_json(folder / "tokenizer_config.json", {"added_tokens_decoder": added})
    base_model.check(folder)


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "preprocessor_config.json", SECOND, base_model.INDEX]
)
def test_a_git_lfs_pointer_is_named(folder, name):
    (folder / name).write_bytes(POINTER)
    assert refusal(folder) == f"{folder / name}: a Git LFS pointer, not the file itself (run `git lfs pull` there)"


@pytest.mark.parametrize("size", [-1, 200, 20, 4, 0])
def test_a_file_cut_off_anywhere_is_named(folder, size):
    path = folder / FIRST
    path.write_bytes(path.read_bytes()[:size])
    assert refusal(folder).startswith(f"{path}: ")


def test_the_bytes_that_are_missing_are_counted(folder):
    path = folder / FIRST
    path.write_bytes(path.read_bytes()[:-5])
    assert refusal(folder) == f"{path}: cut off: 5 bytes are missing at its end (fetch it again)"


def test_a_missing_shard_is_named(folder):
    (folder / SECOND).unlink()
    assert refusal(folder) == f"{folder / base_model.INDEX}: shard {SECOND} is missing (fetch it again)"


def test_a_shard_of_another_version_is_named_with_a_weight_that_it_lacks(folder):
    made = tensors.read(folder / FIRST)
    gone = min(made)
    del made[gone]
    tensors.write(folder / FIRST, made)
    assert refusal(folder).startswith(
        f"{folder / FIRST}: lacks {gone}, which {base_model.INDEX} places in it (1 weight in all)"
    )


def test_a_shard_with_weights_that_the_index_does_not_place_is_named(folder):
    made = tensors.read(folder / FIRST) | {"extra": ("BF16", np.ones((2, 2), np.float32))}
    tensors.write(folder / FIRST, made)
    assert refusal(folder).startswith(f"{folder / FIRST}: holds extra, which {base_model.INDEX} does not place")


def test_a_shard_that_the_index_does_not_list_is_named(folder):
    tensors.write(folder / "model-00003-of-00003.safetensors", {"x": ("F32", np.ones(2, np.float32))})
    assert "does not list model-00003-of-00003.safetensors" in refusal(folder)


def test_a_missing_index_of_shards_is_named(folder):
    (folder / base_model.INDEX).unlink()
    assert refusal(folder) == f"model.base: no {base_model.INDEX} beside {FIRST} in {folder} (fetch it again)"


def test_a_file_with_more_behind_its_last_weight_is_named(folder):
    path = folder / FIRST
    path.write_bytes(path.read_bytes() + b"\0" * 8)
    assert refusal(folder) == f"{path}: holds bytes that belong to no weight, or to two (fetch it again)"


def test_a_file_in_which_two_weights_have_the_same_bytes_is_named(tmp_path):
    folder = base_folders.write(tmp_path)
    path = folder / base_model.WEIGHTS
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    first, second = [name for name in sorted(header) if header[name].get("shape") == [8, 8]][:2]
    header[second]["data_offsets"] = header[first]["data_offsets"]
    text = json.dumps(header, separators=(",", ":")).encode().ljust(length)
    assert len(text) == length
    path.write_bytes(data[:8] + text + data[8 + length :])
    assert "holds bytes that belong to no weight, or to two" in refusal(folder)


def test_an_index_leads_to_no_file_outside_its_folder(folder):
    base_folders.write_json(folder / base_model.INDEX, {"weight_map": {"a": f"../{FIRST}"}})
    for path in folder.glob("model-*"):
        path.unlink()
    assert f"shard ../{FIRST} is missing" in refusal(folder)


def test_pickles_are_refused_with_the_reason(folder):
    for path in folder.glob("model*"):
        path.unlink()
    (folder / "pytorch_model-00001-of-00002.bin").write_bytes(b"x")
    assert "is a pickle, which can run any code" in refusal(folder)


@pytest.mark.parametrize(
    ("name", "role"), [("tokenizer.json", "tokenizer"), ("preprocessor_config.json", "image processor")]
)
def test_a_missing_or_empty_processor_file_is_named(folder, name, role):
    (folder / name).write_text("")
    assert refusal(folder) == f"{folder / name}: is empty (fetch it again)"
    (folder / name).unlink()
    assert f"no {role} in {folder} (it needs {name} or" in refusal(folder)


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "llama"}', "{}"])
def test_another_configuration_is_refused(folder, text):
    (folder / "config.json").write_text(text)
    sentence = refusal(folder)
    assert any(part in sentence for part in ("is not valid JSON", "is not a JSON object", "is not supported"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda made: made.pop("model.language_model.layers.1.mlp.up_proj.weight"), "layers.1.mlp.up_proj.weight is missing (1 weight"),
        (lambda made: made.pop("lm_head.weight"), "lm_head.weight is missing (1 weight"),
        (
            lambda made: made.update({"model.language_model.layers.2.mlp.up_proj.weight": made["lm_head.weight"]}),
            "layers.2.mlp.up_proj.weight has no place in the model (1 weight",
        ),
        (
            lambda made: made.update({"lm_head.weight": ("BF16", np.ones((16, 9), np.float32))}),
            "lm_head.weight is [16, 9], by config.json [16, 8] (1 weight",
        ),
    ],
)  # fmt: skip
def test_weights_that_are_missing_unexpected_or_of_another_shape_are_named(tmp_path, change, sentence):
    folder = base_folders.write(tmp_path)
    made = base_folders.weights(base_folders.config())
    change(made)
    base_folders.write_weights(folder, made)
    assert f"{sentence} does not fit config.json)" in refusal(folder)


def test_a_tied_head_may_be_left_out_or_saved(tmp_path):
    folder = base_folders.write(tmp_path, base_folders.config(tie_word_embeddings=True))
    base_model.check(folder)
    base_folders.write_weights(folder, base_folders.weights(base_folders.config()))
    base_model.check(folder)


def test_the_names_of_older_files_are_understood(tmp_path):
    folder = base_folders.write(tmp_path)
    made = base_folders.weights(base_folders.config())
    older = {
        name.replace("model.visual.", "visual.").replace("model.language_model.", "model."): value
        for name, value in made.items()
    }
    older["model.layers.0.self_attn.rotary_emb.inv_freq"] = ("F32", np.ones(4, np.float32))
    base_folders.write_weights(folder, older)
    base_model.check(folder)


def test_a_type_of_weights_that_cannot_be_trained_is_named(tmp_path):
    folder = base_folders.write(tmp_path)
    path = folder / base_model.WEIGHTS
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    text = data[8 : 8 + length].replace(b'"BF16"', b'"I16" ', 1)
    path.write_bytes(data[:8] + text + data[8 + length :])
    assert "is of type I16 (use the model with weights of type F32, F16, BF16)" in refusal(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "preprocessor_config.json"])
def test_code_of_the_folder_is_refused(folder, name):
    content = json.loads((folder / name).read_text()) if (folder / name).is_file() else {}
    base_folders.write_json(folder / name, content | {"auto_map": {"AutoModel": "modeling.Model"}})
    assert f"{folder / name}: auto_map names code of the folder's own, which is never run" in refusal(folder)


def test_a_quantized_model_is_refused(folder):
    base_folders.change_json(folder / "config.json", quantization_config={"quant_method": "awq"})
    assert "the weights are quantized" in refusal(folder)


@pytest.mark.parametrize("part", ["config", "text_config"])
def test_a_model_whose_layers_see_a_window_only_is_refused(folder, part):
    content = json.loads((folder / "config.json").read_text())
    window = {"use_sliding_window": True}
    changed = window if part == "config" else {"text_config": {**content.get("text_config", {}), **window}}
    base_folders.change_json(folder / "config.json", **changed)
    assert "a window of the conversation only (use_sliding_window)" in refusal(folder)


@pytest.mark.parametrize("token", ["<|image_pad|>", "<|vision_start|>", "<|im_end|>", "<|endoftext|>"])
def test_a_tokenizer_without_a_token_of_prompts_is_refused(folder, token):
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text.replace(token, "<|other|>"))
    assert refusal(folder) == f"{folder}: its tokenizer has no token {token} (fetch the tokenizer of the base model)"


def test_a_token_at_another_id_than_in_the_configuration_is_named(folder):
    base_folders.write_json(folder / "tokenizer.json", base_folders.tokenizer(**{"<|image_pad|>": 9}))
    assert "config.json: image_token_id is 7, but the tokenizer has <|image_pad|> at 9" in refusal(folder)


def test_a_vocabulary_larger_than_the_embedding_is_refused(folder):
    base_folders.write_json(folder / "tokenizer.json", base_folders.tokenizer(**{"<|video_pad|>": 16}))
    assert "tokenizer.json: has token id 16, the embedding 16 rows" in refusal(folder)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"image_processor_type": "CLIPImageProcessor"}, "image_processor_type 'CLIPImageProcessor' is not one of qwen2_5_vl"),
        ({"patch_size": 16}, "patch_size is 16, the vision tower's patch_size 14"),
        ({"merge_size": 4}, "merge_size is 4, the vision tower's spatial_merge_size 2"),
        ({"image_mean": [0.5]}, "image_mean is [0.5], not three numbers"),
    ],
)  # fmt: skip
def test_an_image_processor_of_another_model_is_refused(folder, changes, sentence):
    base_folders.change_json(folder / "preprocessor_config.json", **changes)
    assert f"{folder / 'preprocessor_config.json'}: {sentence}" in refusal(folder)


def test_an_image_processor_inside_the_processors_file_is_read(folder):
    (folder / "preprocessor_config.json").unlink()
    base_folders.write_json(folder / "processor_config.json", {"image_processor": base_folders.preprocessor()})
    base_model.check(folder)
    base_folders.write_json(
        folder / "processor_config.json", {"image_processor": base_folders.preprocessor(patch_size=16)}
    )
    assert "processor_config.json: patch_size is 16" in refusal(folder)


def test_a_model_of_published_size_is_checked_in_a_fraction_of_a_second(tmp_path):
    """Sparse files stand for 16 GB of weights."""
    config = base_folders.config(
        vocab_size=152064, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28,
        num_key_value_heads=4,
    )  # fmt: skip
    shapes = architectures.BY_MODEL_TYPE["qwen2_5_vl"].weights(config)
    header, end = {}, 0
    for name, shape in sorted(shapes.items()):
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    small = base_folders.write(tmp_path)
    base_folders.write_json(small / "config.json", config)
    with (small / base_model.WEIGHTS).open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.truncate(8 + len(text) + end)
    assert end > 13e9
    begin = time.process_time()
    base_model.check(small)
    assert time.process_time() - begin < 1
