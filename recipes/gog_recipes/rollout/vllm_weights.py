"""The trainer's weights as servers take them: one adapter on the plain base model, and a probe that distinguishes it.

Servers hold the base model; the policy is base, saved adapters and the adapter that is trained. Those are joined into
one adapter under a name of its own per version and content, in a folder that every replica reads.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel

from gog import adapters, prompts
from gog.errors import QuestionSkipped
from gog.images import Image
from gog.trajectory import Segment
from gog_recipes.models import lora, policy_model
from gog_recipes.models.family import Processor
from gog_recipes.models.vision import Vision
from gog_recipes.rollout import vllm_leftovers
from gog_recipes.rollout import vllm_request as requests
from gog_recipes.rollout.vllm_images import SentImage, encode
from gog_recipes.rollout.vllm_replica import Probe, Served
from gog_recipes.runtime import checkpoint
from gog_recipes.runtime.ranks import Ranks

QUESTION = "What is shown here, where is it, and what is it called? Look at the image first, then search and answer."
"""Text of the probe, of which every token after the image is compared."""
SIZES = ((84, 112), (96, 96))
"""Height and width of the probe's image. A model whose minPixels is its maxPixels takes squares, and few other sizes."""
EXACT, ROUNDED = 1e-3, 0.2
"""Mean difference in nats per token that is accepted in float32, and in a type of lower precision."""


def serve(
    model: torch.nn.Module, saved: Sequence[Path], version: int, name: str, folder: Path, ranks: Ranks, probe: Probe
) -> Served:
    """Writes a policy's adapter. All ranks at once.

    Args:
        model: the policy, with or without an adapter that is trained.
        saved: adapters beneath that one, as PEFT saves them, in the order in which they were trained.
        version: of the weights.
        name: prefix of the adapter's name.
        folder: in which the adapter appears.
        ranks: the processes that share the model; the first one writes.
        probe: of these weights.
    """
    trained = isinstance(model, PeftModel) and lora.TRAINED in model.peft_config
    if not trained and not saved:
        return Served("", "", version, probe)
    with tempfile.TemporaryDirectory() as scratch:
        parts = list(saved)
        if trained:
            tensors = checkpoint.whole_adapter(model)
            if ranks.is_main:
                checkpoint.save_adapter(model, tensors, Path(scratch) / "trained")
                parts.append(Path(scratch) / "trained")
        written = _write(parts, Path(scratch), folder, f"{name}-{version}") if ranks.is_main else None
    written = ranks.broadcast(written)
    assert written is not None
    return Served(written.name, str(written), version, probe)


def _write(parts: Sequence[Path], scratch: Path, folder: Path, name: str) -> Path:
    """The parts joined, in a folder named by their content: other weights never have the same name."""
    joined = adapters.join(parts, scratch / "joined")
    digest = hashlib.blake2b((joined / adapters.WEIGHTS).read_bytes(), digest_size=6).hexdigest()
    target = folder.absolute() / f"{name}-{digest}"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=f"{vllm_leftovers.WRITING}{target.name}.") as place:
            shutil.copytree(joined, Path(place) / "adapter").replace(target)
    return target


def _image(processor: Processor, vision: Vision) -> tuple[str, SentImage]:
    """Content hash of an image of noise, and the image as it is sent. Raises QuestionSkipped if no size is taken."""
    for high, wide in SIZES:
        image = Image(np.random.default_rng(0).integers(0, 256, (high, wide, 3), dtype=np.uint8))
        try:
            vision.add([image])
            return image.hash, SentImage(encode(image, processor, vision), vision.tokens(image.hash))
        except QuestionSkipped:
            if (high, wide) == SIZES[-1]:
                raise
    raise AssertionError


@torch.no_grad()
def probe(model: torch.nn.Module, processor: Processor, vision: Vision) -> Probe:
    """A fixed prompt with an image, and the trainer's log-probs of its text. All ranks at once.

    Args:
        model: the policy.
        processor: of its base model.
        vision: image features.
    """
    image, sent = _image(processor, vision)
    ids = processor.encode(prompts.prompt(QUESTION, style=processor.style), [sent.tokens])
    prompt = requests.Prompt()
    segment = Segment(source="prompt", tokens=tuple(ids), images=(image,))
    prompt.append(segment, processor.image_pad, lambda _: sent.tokens)
    start = requests.probe_start(prompt)
    opening = segment.model_copy(update={"tokens": segment.tokens[:start]})
    rest = Segment(source="model", tokens=segment.tokens[start:])
    weights = next(model.parameters())
    batch = policy_model.collate([[opening, rest]], processor, vision, policy_model.device_of(model))
    logprobs = policy_model.token_logprobs(model, batch, policy_model.features(batch, vision))
    tolerance = EXACT if weights.dtype == torch.float32 else ROUNDED
    return Probe(prompt, (sent.uri,), logprobs.cpu().numpy().astype(np.float64), tolerance)
