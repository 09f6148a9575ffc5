"""The back end `grounding-dino`: Grounding DINO through transformers (IDEA-Research/grounding-dino-tiny, -base).

Thresholds are those of the published demo: a box needs a score of `threshold`, and the phrase that it is about one of
`text_threshold`. A box whose best tokens are separators is about no phrase and is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import transformers
from pydantic import Field

from gog.errors import UserError
from gog_tools.grounding import network, phrases, weights
from gog_tools.serving import backends

SPECIAL = {"[CLS]": 101, "[SEP]": 102, ".": 1012, "?": 1029}
"""Tokens by which the model separates phrases, and their ids, which are constants of its code."""


class GroundingDino(network.Network):
    """A Detector."""

    model_type = "grounding-dino"
    model_class = transformers.GroundingDinoForObjectDetection
    vision = "model.backbone"

    def __init__(
        self,
        fetch_model: network.Fetch = Path,
        *,
        weights: backends.LocalPath,
        threshold: network.Share = 0.35,
        text_threshold: network.Share = 0.25,
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
            text_threshold: lowest score of a box's phrase
            overlap: of two boxes that overlap by more (intersection over union), the better one is kept
            limit: most boxes of an answer; the agent shows `tools.maxCandidates` of them
            batch: most images of a forward pass
            device: torch device; auto: cuda if there is one, else cpu
            dtype: type of the weights; auto: float32 on a CPU, else as they are stored
        """
        self.text_threshold = text_threshold
        super().__init__(
            fetch_model(weights),
            threshold=threshold,
            overlap=overlap,
            limit=limit,
            batch=batch,
            device=device,
            dtype=dtype,
        )

    def text_shape(self, query: Sequence[str]) -> None:
        """Captions of any length share a pass: the text encoder masks the padding."""

    def tokens(self, queries: Sequence[Sequence[str]]) -> dict[str, torch.Tensor]:
        encoded = self._encode(queries)
        return {name: encoded[name] for name in ("input_ids", "token_type_ids", "attention_mask")}

    def boxes(
        self,
        outputs: Any,
        tokens: dict[str, torch.Tensor],
        queries: Sequence[Sequence[str]],
        sizes: Sequence[tuple[int, int]],
    ) -> list[tuple[torch.Tensor, torch.Tensor, list[str]]]:
        processed = self.processor.post_process_grounded_object_detection(
            outputs,
            tokens["input_ids"],
            threshold=self.threshold,
            text_threshold=self.text_threshold,
            target_sizes=list(sizes),
        )
        probabilities = outputs.logits.sigmoid()
        owners = self._owners(queries)
        found = []
        for index, each in enumerate(processed):
            kept = probabilities[index].amax(-1) > self.threshold
            about = self._about(probabilities[index][kept], owners[index])
            chosen = torch.tensor([phrase >= 0 for phrase in about], dtype=torch.bool)
            labels = [queries[index][phrase] for phrase in about if phrase >= 0]
            found.append((each["boxes"][chosen], each["scores"][chosen], labels))
        return found

    def _about(self, probabilities: torch.Tensor, owners: torch.Tensor) -> list[int]:
        """Of boxes [n, tokens] the index of the phrase with the best token; -1 for none above the text threshold."""
        own = probabilities[:, : len(owners)].masked_fill(owners < 0, -1.0)
        best = own.max(-1)
        return torch.where(best.values > self.text_threshold, owners[best.indices], -1).tolist()

    def _owners(self, queries: Sequence[Sequence[str]]) -> list[torch.Tensor]:
        """Of each token [tokens] of each query the index of its phrase; -1 for separators and padding."""
        offsets = self._encode(queries, return_offsets_mapping=True)["offset_mapping"].tolist()
        return [
            torch.tensor([phrases.owner(query, begin, end) for begin, end in spans])
            for query, spans in zip(queries, offsets, strict=True)
        ]

    def _encode(self, queries: Sequence[Sequence[str]], **more: bool) -> Any:
        """Captions as tokens; what is longer than the model reads is cut."""
        return self.processor.tokenizer(
            [phrases.join(query) for query in queries],
            padding=True,
            truncation=True,
            max_length=self.model.config.max_text_len,
            return_tensors="pt",
            return_token_type_ids=True,
            **more,
        )

    def _load(self, folder: Path) -> tuple[Any, Any]:
        processor, model = super()._load(folder)
        found = {token: processor.tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
        if found != SPECIAL or not processor.tokenizer.is_fast:
            raise UserError(
                f"the tokenizer has the ids {found}, the model is made for {SPECIAL}",
                where=weights.WHERE,
                remedy="fetch the tokenizer of the model",
            )
        return processor, model
