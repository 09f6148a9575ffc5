"""Images as vectors, by any vision encoder that transformers loads: SigLIP, CLIP, DINOv2, ViT, and those of timm.

An encoder is a folder in Hugging Face form. Its weights come from safetensors alone, and no code of the folder is run.
The vector of an image is what the model itself offers: features of the space that it shares with text, else its pooled
output, else its first token. Vectors have length 1, so that their dot product is the cosine of their angle.

Vectors of two encoders cannot be compared, so an encoder has a fingerprint: a hash of its configuration, of its image
processor's, and of all its weights.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import blake3
import numpy as np
from PIL import Image as PILImage

from gog import base_source, finite_json
from gog.errors import UserError
from gog.images import Image
from gog.spec import StoreSpec
from gog_tools.serving import devices

SCHEME = "1"
"""Changes when the vectors of an unchanged folder change: with the framing below, or the choice of the output."""
CONFIGS = ("config.json", "preprocessor_config.json", "processor_config.json")
"""Files of a folder that decide what its vectors are, besides the weights."""
MAX_ASPECT = 8
"""A longer image is padded to this ratio of its sides: processors resize the shorter side, and would make 1 x 10,000 pixels
224 x 2,240,000."""
MIN_SIDE = 16
"""A smaller image is enlarged: an array of 1 or 3 rows is taken for one whose first axis holds the channels."""
_OF_IMAGES = ("vision_config", "image_size", "num_channels", "architecture")
"""Fields of the configurations of models that take images; the last one is timm's."""
_PADDING = (128, 128, 128)
_ANY = "s3://bucket"
"""Address in the options of a store that was not given; the encoder has its own."""

Inputs = Mapping[str, Any]
"""What a model is called with for one image: tensors by name, each with a first axis of 1."""


class Encoder:
    """An encoder in memory."""

    def __init__(
        self, folder: Path, name: str, *, device: str = "cpu", dtype: Literal["float32", "bfloat16"] = "float32"
    ) -> None:
        """Loads an encoder and tries it.

        Args:
            folder: in Hugging Face form.
            name: what it is recorded as, and called in messages.
            device: torch device; auto: cuda if there is one, else cpu.
            dtype: type of the weights.

        Raises:
            UserError: torch or transformers is not installed, there is no such device, or the folder holds no encoder of
                images, not all of its weights, or none in safetensors.
        """
        self.name = name
        torch, transformers = _libraries(name)
        found = devices.find(device)
        self.fingerprint = fingerprint(folder, name)
        _check_config(folder, name)
        with _explained(name):
            self._processor = transformers.AutoImageProcessor.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            self._model, info = transformers.AutoModel.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=getattr(torch, dtype),
                output_loading_info=True,
            )
            self._model = self._model.to(found).eval()
        missing = sorted(info["missing_keys"])
        self._pooled = not any("pooler." in each for each in missing)
        if absent := [each for each in missing if "pooler." not in each]:
            raise UserError(f"lacks weights: {absent[0]}", where=name, remedy="fetch configuration and weights anew")
        self._model.text_model = None  # of SigLIP and CLIP: half of the memory, never used
        self._torch, self._device, self._dtype = torch, found, getattr(torch, dtype)
        self.dimensions = self._try()

    def _try(self) -> int:
        """Length of the vectors. Raises UserError for a model whose output is not one vector for each image."""
        probe = Image(np.full((32, 48, 3), 96, np.uint8))
        with _explained(self.name):
            vectors = self.encode([self.prepare(probe), self.prepare(probe)])
        if vectors.ndim != 2 or len(vectors) != 2 or not np.isfinite(vectors).all():
            raise UserError("is no encoder of images: it gives no vector for each", where=self.name, remedy=_REMEDY)
        return int(vectors.shape[1])

    def prepare(self, image: Image) -> Inputs:
        """What the model is called with for an image of any size."""
        inputs = self._processor(images=framed(image), return_tensors="pt")
        return {key: value for key, value in inputs.items() if hasattr(value, "shape")}

    def encode(self, prepared: Sequence[Inputs]) -> np.ndarray:
        """The vectors [n, d] float32 of n prepared images, each of length 1."""
        torch = self._torch
        batch = {key: torch.cat([each[key] for each in prepared]).to(self._device) for key in prepared[0]}
        batch = {key: value.to(self._dtype) if value.is_floating_point() else value for key, value in batch.items()}
        with torch.inference_mode():
            vectors = self._features(batch).float()
            vectors = torch.nn.functional.normalize(vectors, dim=-1)
        return np.ascontiguousarray(vectors.cpu().numpy(), dtype=np.float32)

    def _features(self, batch: Inputs) -> Any:
        """[n, d], not normalised."""
        model = self._model
        output = model.get_image_features(**batch) if hasattr(model, "get_image_features") else model(**batch)
        if self._torch.is_tensor(output):
            return output
        pooled = getattr(output, "pooler_output", None) if self._pooled else None
        return output.last_hidden_state[:, 0] if pooled is None else pooled.flatten(1)


_REMEDY = "name a vision encoder, such as google/siglip2-base-patch16-224 or facebook/dinov2-base"


def load(
    name: str,
    *,
    store: StoreSpec | None,
    scratch: Path,
    device: str = "cpu",
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> Encoder:
    """An encoder by its address.

    Args:
        name: a folder, `file://`, `s3://` or `hf://org/name[@revision]`.
        store: how `s3://` is read; None: as the environment says.
        scratch: a folder for what is fetched from a store.
        device: torch device.
        dtype: type of the weights.

    Raises:
        UserError, ServiceDown, store.Unavailable: as `base_source.fetch` and `Encoder`.
    """
    _libraries(name)  # before minutes are spent on fetching
    devices.find(device)
    found = base_source.fetch(name, options=store or StoreSpec(uri=_ANY), target=scratch / "encoder")
    loaded = Encoder(found.folder, found.name, device=device, dtype=dtype)
    loaded.name = recorded(found)  # messages of the loading have the name that was given
    return loaded


def recorded(found: base_source.Located) -> str:
    """What an index calls an encoder: a folder by its absolute path, which holds wherever a server is started."""
    return str(found.folder.absolute()) if "://" not in found.name else found.name


def framed(image: Image) -> PILImage.Image:
    """The image, padded with grey where it is too long and enlarged where it is too small for an image processor."""
    opened = PILImage.fromarray(image.pixels)
    width, height = opened.size
    least = math.ceil(max(width, height) / MAX_ASPECT)
    if min(width, height) < least:
        padded = PILImage.new("RGB", (max(width, least), max(height, least)), _PADDING)
        padded.paste(opened, ((padded.width - width) // 2, (padded.height - height) // 2))
        opened = padded
    if (short := min(opened.size)) < MIN_SIDE:
        factor = math.ceil(MIN_SIDE / short)
        opened = opened.resize((opened.width * factor, opened.height * factor), PILImage.Resampling.NEAREST)
    return opened


def fingerprint(folder: Path, name: str) -> str:
    """The fingerprint of an encoder's folder: `SCHEME-` and 32 hexadecimal digits.

    Raises:
        UserError: no configuration, or no weights in safetensors.
    """
    weights = sorted(folder.glob("*.safetensors"))
    configured = (folder / CONFIGS[0]).is_file()
    if not configured or not weights:
        remedy = "name a folder in Hugging Face form; other weights than safetensors are not loaded"
        raise UserError(f"no {'weights in safetensors' if configured else CONFIGS[0]}", where=name, remedy=remedy)
    digest = blake3.blake3(max_threads=blake3.blake3.AUTO)
    for path in [folder / each for each in CONFIGS if (folder / each).is_file()] + weights:
        digest.update(f"\0{path.name}\0{path.stat().st_size}\0".encode())
        digest.update_mmap(path)
    return f"{SCHEME}-{digest.hexdigest(length=16)}"


def _check_config(folder: Path, name: str) -> None:
    """Raises UserError for a model without images, which transformers would load first, however large it is."""
    with _explained(name):
        config = finite_json.loads((folder / CONFIGS[0]).read_bytes())
        if not any(key in config for key in _OF_IMAGES):
            kind = config.get("model_type")
            raise UserError(f"is no encoder of images: its model_type is {kind!r}", where=name, remedy=_REMEDY)


def _libraries(name: str) -> tuple[Any, Any]:
    """torch and transformers, imported here because only this back end needs them, and they take seconds."""
    try:
        import torch
        import transformers
    except ImportError as error:
        raise UserError(
            f"needs torch and transformers: {error}",
            where=name,
            remedy="pip install 'gog[recipes]'; on a cluster use the trainer's image for this endpoint",
        ) from None
    return torch, transformers


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turns what transformers raises about a folder into UserError: it raises nearly every kind of exception."""
    try:
        yield
    except UserError:
        raise
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:
        cause = " ".join(str(error).split())[:300]
        raise UserError(
            f"cannot be used as an encoder of images: {type(error).__name__}: {cause}", where=name, remedy=_REMEDY
        ) from error
