"""Base models and saved adapters: what does not belong together is refused, with an example."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from gog import adapters
from gog.errors import QuestionSkipped, UserError
from gog.images import Image
from gog.spec import LoraSettings, ModelSpec
from gog_recipes import world
from gog_recipes.models import lora, policy_model
from gog_recipes.models.decoder import Decoder, StepInputs
from gog_recipes.models.kv_cache import Row

CPU = torch.device("cpu")
SPEC = ModelSpec(base="tiny")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """An adapter of the tiny model, as PEFT saves it."""
    folder = tmp_path_factory.mktemp("adapter")
    lora.add(policy_model.load_base(SPEC, CPU), LoraSettings(rank=4)).save_pretrained(str(folder))
    return folder


@pytest.fixture
def changed(saved, tmp_path):
    """changed(how): a copy of the adapter whose weights are how(weights)."""

    def change(how):
        folder = shutil.copytree(saved, tmp_path / "changed")
        save_file(how(load_file(saved / adapters.WEIGHTS)), folder / adapters.WEIGHTS)
        return folder

    return change


def renamed(how):
    return lambda weights: {how(name): values for name, values in weights.items()}


def first_layer_only(weights):
    return {name: values for name, values in weights.items() if ".layers.0." in name}


def refusal(folder):
    with pytest.raises(UserError) as caught:
        lora.with_saved(policy_model.load_base(SPEC, CPU), [folder])
    assert caught.value.where == str(folder)
    return caught.value.what


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """An SFT adapter, and an RL adapter whose update is a thousandth of it, as after some steps of RL."""
    folders = []
    torch.manual_seed(0)
    for size in (1e-2, 1e-5):
        model = lora.add(policy_model.load_base(SPEC, CPU), LoraSettings())
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=size)
        folders.append(tmp_path_factory.mktemp("trained"))
        model.save_pretrained(str(folders[-1]))
    return folders


def update_of(model, without):
    """What adapters change about the output of each linear, for one input of each; concatenated."""
    torch.manual_seed(1)
    outputs = []
    for (_, linear), (_, other) in zip(linears_of(model), linears_of(without), strict=True):
        x = torch.randn(4, linear.in_features).to(torch.bfloat16)
        outputs.append((exact(linear, x) - exact(other, x)).flatten())
    return torch.cat(outputs)


def linears_of(model):
    return [
        (name, module)
        for name, module in policy_model.core(model).named_modules()
        if name.endswith(("_proj",)) and "language_model" in name
    ]


def exact(linear, x):
    """The output in float64, which shows what the weights hold before the result is rounded."""
    weight = linear.weight.detach().double()
    for adapter in getattr(linear, "active_adapters", ()):
        weight = weight + linear.get_delta_weight(adapter).detach().double()
    return x.double() @ weight.T


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_rl_sized_update_survives_in_weights_of_any_precision(trained, dtype):
    spec = ModelSpec(base="tiny", dtype=dtype)
    sft = lora.with_saved(policy_model.load_base(spec, CPU), trained[:1])
    grpo = lora.with_saved(policy_model.load_base(spec, CPU), trained)
    reference = lora.with_saved(policy_model.load_base(SPEC, CPU), trained[:1])
    expected = update_of(lora.with_saved(policy_model.load_base(SPEC, CPU), trained), reference)
    found = update_of(grpo, sft)
    assert float((found - expected).norm() / expected.norm()) < 0.02
    assert not any(parameter.requires_grad for parameter in grpo.parameters())


def sampled_logits(model):
    """What the in-process engine would sample from after a prompt."""
    decoder, blocks = Decoder(model), []
    decoder.make_cache(16, 2**24)
    assert decoder.cache.reserve(blocks, 12)
    places = torch.arange(12).expand(3, 1, 12)
    return decoder.step(StepInputs([Row(blocks)], [0], [12], torch.arange(12)[None], places, None, None))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 0.0), ("bfloat16", 0.02)])
def test_policies_that_share_a_base_sample_what_each_samples_from_a_base_of_its_own(trained, dtype, tolerance):
    spec = ModelSpec(base="tiny", dtype=dtype)
    shared = lora.beside(policy_model.load_base(spec, CPU), {"sft": trained[0], "grpo": trained[1]})
    found = []
    for chain in ((), ("sft", "grpo"), ("sft",), ()):
        lora.activate(shared, chain)
        found.append(sampled_logits(shared))
        alone = lora.with_saved(policy_model.load_base(spec, CPU), trained[: len(chain)])
        assert float((found[-1] - sampled_logits(alone)).abs().max()) <= tolerance, chain
    assert torch.equal(found[0], found[-1])
    assert float((found[0] - found[2]).abs().max()) > 0.1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_only_the_fresh_adapter_is_trained_and_without_it_the_policy_is_the_reference(trained, dtype):
    spec = ModelSpec(base="tiny", dtype=dtype)
    before = lora.with_saved(policy_model.load_base(spec, CPU), trained[:1])
    model = lora.add(lora.with_saved(policy_model.load_base(spec, CPU), trained[:1]), LoraSettings())
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert names and all(f".{lora.TRAINED}." in name for name in names)
    for name, parameter in model.named_parameters():
        if name in names:
            torch.nn.init.normal_(parameter, std=0.1)
    ids = torch.arange(12)[None]
    positions = torch.arange(12).expand(3, 1, 12)

    def hidden(policy):
        return policy_model.family_of(policy).hidden_states(policy_model.core(policy), ids, positions, None)

    with lora.reference(model), torch.no_grad():
        reference = hidden(model)
    with torch.no_grad():
        assert torch.equal(reference, hidden(before))
        assert not torch.allclose(reference, hidden(model), atol=1e-2)
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == names


@pytest.mark.parametrize(
    ("how", "count"),
    [
        (lambda name: name.replace("model.language_model.layers", "model.layers"), "42 of 42"),
        (lambda name: name.removeprefix("base_model.model."), "42 of 42"),
        (lambda name: name.replace("layers.2.self_attn", "layers.2.attention"), "8 of 42"),
    ],
)
def test_weights_without_a_place_are_refused_with_an_example_of_both(changed, how, count):
    what = refusal(changed(renamed(how)))
    assert what.startswith(f"{count} weights have no place in the base model: the adapter has '")
    assert re.search(r"the model 'base_model\.model\.\S+\.lora_A\.weight'", what)


def test_an_adapter_without_weights_for_a_targeted_module_is_refused(changed):
    assert refusal(changed(first_layer_only)).startswith("14 of 21 modules that it targets have no weights in it")


def test_an_adapter_of_another_width_is_refused(changed):
    wide = changed(lambda weights: {name: torch.cat((v, v), dim=1) for name, v in weights.items()})
    assert "the model's linear [" in refusal(wide)


def test_the_example_of_a_refusal_is_a_module_of_the_same_kind(changed):
    what = refusal(changed(renamed(lambda name: name.replace("model.language_model.layers", "model.layers"))))
    first, second = re.findall(r"\.(\w+)\.lora_A", what)
    assert first == second


def test_an_adapter_whose_weights_have_another_rank_than_its_configuration_is_refused(changed):
    folder = changed(lambda weights: weights)
    path = folder / adapters.CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | {"r": 8}))
    assert re.search(r"lora_A\.weight is \[4, \d+\], not of rank 8$", refusal(folder))


@pytest.mark.parametrize("targets", [r".*visual.*\.qkv", ["qkv", "q_proj"]])
def test_an_adapter_on_modules_that_the_family_does_not_adapt_is_refused(tmp_path, targets):
    """Decoder and learner would ignore it."""
    settings = peft.LoraConfig(r=4, target_modules=targets)
    peft.get_peft_model(policy_model.load_base(SPEC, CPU), settings).save_pretrained(str(tmp_path))
    assert re.search(
        r"^\d+ of \d+ modules that it changes are not adapted here, such as model\.visual", refusal(tmp_path)
    )


def test_an_adapter_that_is_not_finite_is_refused(changed):
    assert refusal(changed(lambda weights: {name: v / 0 for name, v in weights.items()})).endswith("is not finite")


def test_a_folder_without_an_adapter_is_refused(tmp_path):
    assert refusal(tmp_path) == "adapter_model.safetensors is missing"


@pytest.fixture
def base(tmp_path):
    """A copy of the tiny model's folder."""
    return shutil.copytree(world.TINY, tmp_path / "base")


def test_a_base_whose_weights_do_not_match_its_configuration_is_refused(base):
    weights = load_file(base / "model.safetensors")
    gone = next(name for name in weights if "layers.1.mlp.up_proj" in name)
    save_file({name: v for name, v in weights.items() if name != gone}, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"layers\.1\.mlp\.up_proj\.weight is missing \(1 weight does not fit"):
        policy_model.load_base(ModelSpec(base=str(base), family="tiny"), CPU)


def test_a_tokenizer_without_the_image_placeholder_is_refused(base):
    text = (base / "tokenizer.json").read_text()
    assert "<|image_pad|>" in text
    (base / "tokenizer.json").write_text(text.replace("<|image_pad|>", "<|other_pad|>"))
    config = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps(config).replace("<|image_pad|>", "<|other_pad|>"))
    with pytest.raises(UserError, match=r"has no token <\|image_pad\|>"):
        policy_model.load_processor(ModelSpec(base=str(base), family="tiny"))


@pytest.mark.parametrize("shape", [(7, 1600), (1, 300)])
def test_an_image_that_the_model_cannot_take_skips_its_question(shape):
    with pytest.raises(QuestionSkipped, match=f"an image of {shape[1]} x {shape[0]} pixels"):
        policy_model.load_processor(SPEC).patches(Image(np.zeros((*shape, 3), np.uint8)))


@pytest.mark.parametrize("height", [1, 2, 3, 4])
def test_a_flat_image_is_read_as_wide_as_it_is(height):
    patches = policy_model.load_processor(SPEC).patches(Image(np.zeros((height, 100, 3), np.uint8)))
    assert patches.grid[2] > patches.grid[1]
