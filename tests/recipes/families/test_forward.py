"""Log-probs and LoRA gradients equal those of transformers' own forward, from pixels on, for every family.

The conversations have several turns and images of mixed sizes, and the bases the published structures. So a lost
DeepStack level, a wrong rotary position, a lost bias or an image in the wrong place fails here.
"""

from __future__ import annotations

import pytest
import torch
from support import conversations, plain, real_structures

from gog.spec import LoraSettings, ModelSpec
from gog_recipes.models import lora, packing, policy_model

CPU = torch.device("cpu")
CASES = [(family, {}) for family in real_structures.FAMILIES] + [("qwen2_5_vl", {"tied": True})]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case[0] + "".join(f"-{name}" for name in case[1]))
def world(request, real_base, photographs):
    """Model, processor, vision, conversations and images of one base."""
    family, overrides = request.param
    spec = ModelSpec(base=str(real_base(family, **overrides)))
    model, processor = policy_model.load_base(spec, CPU), policy_model.load_processor(spec)
    vision = policy_model.vision_of(model, processor)
    shown = conversations.images(photographs)
    return model, processor, vision, conversations.rows(processor, vision, shown), {each.hash: each for each in shown}


def logprobs(logits, tokens):
    return logits.float().log_softmax(-1).gather(1, tokens[:, None])[:, 0]


def test_logprobs_equal_those_of_transformers_from_pixels_on(world):
    model, processor, vision, rows, by_hash = world
    with torch.no_grad():
        batch = policy_model.collate(rows, processor, vision, CPU)
        ours = logprobs(*plain.forward(model, batch, processor, vision))
        theirs = torch.cat([logprobs(*conversations.reference(model, processor, row, by_hash)) for row in rows])
    assert len(ours) > 60 and float(theirs.std()) > 0.9  # the weights make a difference
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_positions_equal_those_of_transformers(world):
    model, processor, vision, rows, _ = world
    for row in rows:
        ids = [token for segment in row for token in segment.tokens]
        grids = [vision.grid(image) for segment in row for image in segment.images]
        tensor = torch.tensor([ids])
        theirs, delta = model.model.get_rope_index(
            input_ids=tensor,
            mm_token_type_ids=(tensor == processor.image_pad).int(),
            image_grid_thw=torch.tensor(grids),
        )
        ours, after = processor.positions(ids, grids)
        assert (theirs[:, 0].numpy() == ours).all()
        assert after == len(ids) + int(delta)


def test_gradients_of_the_adapter_equal_those_of_transformers(world):
    _, processor, vision, rows, by_hash = world
    model = lora.add(world[0], LoraSettings(rank=4))
    try:
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:  # zeros, which would leave A without a gradient
                torch.nn.init.normal_(parameter, std=0.05)
        ours = _gradient(
            model,
            lambda: -logprobs(*plain.forward(model, _batch(rows, processor, vision), processor, vision)).sum(),
        )
        theirs = _gradient(
            model,
            lambda: (
                -sum(
                    logprobs(*conversations.reference(policy_model.core(model), processor, row, by_hash)).sum()
                    for row in rows
                )
            ),
        )
    finally:
        model.unload()
    assert float(theirs.norm()) > 0.1
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-5


def _batch(rows, processor, vision):
    return policy_model.collate(rows, processor, vision, CPU)


def _gradient(model, loss):
    model.zero_grad(set_to_none=True)
    loss().backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.requires_grad])


def test_packed_conversations_equal_the_same_ones_in_rows(world):
    model, processor, vision, rows, _ = world
    family, core = policy_model.family_of(model), policy_model.core(model)
    ids = [[token for segment in row for token in segment.tokens] for row in rows]
    images = [[image for segment in row for image in segment.images] for row in rows]
    positions = [
        torch.from_numpy(processor.positions(own, [vision.grid(image) for image in shown])[0])
        for own, shown in zip(ids, images, strict=True)
    ]
    features = [torch.cat([vision[image] for image in shown]) for shown in images]
    with torch.no_grad():
        packed = family.hidden_states(
            core,
            torch.tensor([[token for own in ids for token in own]]),
            torch.cat(positions, 1)[:, None],
            torch.cat(features),
            layout=packing.apart([len(own) for own in ids]),
        )
        alone = [
            family.hidden_states(core, torch.tensor([own]), where[:, None], shown)
            for own, where, shown in zip(ids, positions, features, strict=True)
        ]
    torch.testing.assert_close(packed[0], torch.cat([each[0] for each in alone]), rtol=0, atol=2e-5)
