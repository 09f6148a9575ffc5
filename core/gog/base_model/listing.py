"""The files of a base model that is not on this machine, checked by their names alone."""

from __future__ import annotations

import re
from collections.abc import Collection

from gog.base_model import image_processor, json_file, tokenizer, weights
from gog.errors import UserError

NUMBERED = re.compile(r"model-(\d+)-of-(\d+)\.safetensors")
SETS = (
    ("configuration", ((json_file.CONFIG,),)),
    ("index or weights as safetensors", ((weights.WEIGHTS,), (weights.INDEX,))),
    ("tokenizer", ((tokenizer.FILE,), (tokenizer.VOCABULARY, tokenizer.MERGES))),
    ("image processor", ((image_processor.FILE,), (image_processor.NESTED,))),
)
"""What a model needs, and the sets of files of which one must be there."""


def check(names: Collection[str], where: str) -> None:
    """Whether files with these names can be a whole base model.

    Args:
        names: of the files in its folder
        where: the model, for messages

    Raises:
        UserError: naming what is missing.
    """
    for role, choices in SETS:
        if not any(set(choice) <= set(names) for choice in choices):
            wanted = " or ".join(" and ".join(choice) for choice in choices)
            raise UserError(f"has no {role}", where=where, remedy=f"it needs {wanted}")
    numbers = {match[1]: match[2] for name in names if (match := NUMBERED.fullmatch(name))}
    if weights.WEIGHTS in names or not numbers:
        return
    for total in set(numbers.values()):
        absent = [number for number in range(1, int(total) + 1) if f"{number:0{len(total)}}" not in numbers]
        if absent:
            raise UserError(
                f"has no shard {absent[0]} of {int(total)} ({len(absent)} missing)",
                where=where,
                remedy="upload the whole model",
            )
