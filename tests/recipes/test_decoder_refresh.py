"""Copies of weights that the decoder makes exist once, also while they are made again."""

from __future__ import annotations

import torch

from gog.spec import ModelSpec
from gog_recipes.models import decoder_weights, policy_model
from gog_recipes.models.decoder import Decoder


def test_the_copies_of_earlier_weights_are_freed_before_others_are_made(monkeypatch):
    model = policy_model.load_base(ModelSpec(base="tiny"), torch.device("cpu"))
    decoder, held = Decoder(model), []
    make = decoder_weights.layer

    def layer(*args, **settings):
        held.append((len(decoder.layers), decoder.head.numel(), decoder.embedding.numel()))
        return make(*args, **settings)

    monkeypatch.setattr(decoder_weights, "layer", layer)
    decoder.refresh(model)
    assert set(held) == {(0, 0, 0)} and decoder.layers and decoder.head.numel()
