"""The folder of a detector's weights, checked before anything is loaded.

Weights come from safetensors alone, because a pickle can run any code when it is loaded, and code that comes with a model
is never run.
"""

from __future__ import annotations

from pathlib import Path

from gog.base_model import image_processor, json_file, weights
from gog.errors import UserError

WHERE = "weights"
CODE = (json_file.CONFIG, "tokenizer_config.json", "preprocessor_config.json", "processor_config.json")
"""Files that can name code of the folder's own, by `auto_map`."""
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json")
"""Files of which a tokenizer has one."""


def check(folder: Path, model_type: str) -> None:
    """Whether a folder holds the configuration, tokenizer, image processor and weights of a detector.

    Args:
        folder: in Hugging Face form
        model_type: of its config.json

    Raises:
        UserError: naming the file that is missing, cut off or of another kind.
    """
    config = json_file.read(folder / json_file.CONFIG, folder, WHERE)
    kind = config.get("model_type")
    if kind != model_type:
        raise UserError(
            f"{folder} is of model type {kind!r}, not {model_type!r}",
            where=WHERE,
            remedy=f"name a model of type {model_type}, or another back end",
        )
    for name in CODE:
        if json_file.optional(folder / name).get("auto_map"):
            raise UserError(
                "auto_map names code of the folder's own, which is never run",
                where=str(folder / name),
                remedy="remove auto_map, or use another model",
            )
    weights.headers(folder, WHERE)
    image_processor.read(folder, WHERE)
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise UserError(f"no tokenizer in {folder}", where=WHERE, remedy=f"it needs one of {', '.join(TOKENIZERS)}")
