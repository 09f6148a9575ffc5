"""The back end `owlv2`: OWLv2 through transformers (google/owlv2-base-patch16-ensemble, …).

Every phrase is a query of its own, and the label of a box is the query with its best score. Scores are lower than those
of Grounding DINO, hence the lower threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import transformers
from pydantic import Field

from gog_tools.grounding import network
from gog_tools.serving import backends


class Owlv2(network.Network):
    """A Detector."""

    model_type = "owlv2"
    model_class = transformers.Owlv2ForObjectDetection
    vision = "owlv2.vision_model"

    def __init__(
        self,
        fetch_model: network.Fetch = Path,
        *,
        weights: backends.LocalPath,
        threshold: network.Share = 0.1,
        overlap: network.Share = 0.7,
        limit: Annotated[int, Field(ge=1, le=100)] = 20,
        batch: Annotated[int, Field(ge=1, le=64)] = 8,
        device: str = "auto",
        dtype: network.Dtype = "auto",
    ) -> None:
        """Loads the detector.

        Args:
            fetch_model: finds the folder of the weights
            weights: their name: a folder, `s3://` or `hf://`
            threshold: lowest score of a box
            overlap: of two boxes that overlap by more (intersection over union), the better one is kept
            limit: most boxes of an answer; the agent shows `tools.maxCandidates` of them
            batch: most images of a forward pass
            device: torch device; auto: cuda if there is one, else cpu
            dtype: type of the weights; auto: float32 on a CPU, else as they are stored
        """
        super().__init__(
            fetch_model(weights),
            threshold=threshold,
            overlap=overlap,
            limit=limit,
            batch=batch,
            device=device,
            dtype=dtype,
        )

    def text_shape(self, query: Sequence[str]) -> int:
        """The number of phrases: a query that were only padding could have the best score."""
        return len(query)

    def tokens(self, queries: Sequence[Sequence[str]]) -> dict[str, torch.Tensor]:
        encoded = self.processor.tokenizer(
            [phrase for query in queries for phrase in query],
            padding="max_length",
            truncation=True,
            max_length=self.model.config.text_config.max_position_embeddings,
            return_tensors="pt",
        )
        return {name: encoded[name] for name in ("input_ids", "attention_mask")}

    def boxes(
        self,
        outputs: Any,
        tokens: dict[str, torch.Tensor],
        queries: Sequence[Sequence[str]],
        sizes: Sequence[tuple[int, int]],
    ) -> list[tuple[torch.Tensor, torch.Tensor, list[str]]]:
        processed = self.processor.post_process_grounded_object_detection(
            outputs,
            threshold=self.threshold,
            target_sizes=list(sizes),
            text_labels=[list(query) for query in queries],
        )
        return [(each["boxes"], each["scores"], list(each["text_labels"])) for each in processed]
