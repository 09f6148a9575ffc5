"""Configurations of stages whose memory is estimated: small, and with the same sizes everywhere."""

from __future__ import annotations

from typing import Any

from gog.spec import GRPOConfig

LENGTH, WRITTEN, CONVERSATIONS = 512, 128, 4
"""Tokens of a conversation, those that the model writes, and conversations that are open at once."""
GAP = 1e6
"""The recorded log-probs of these trajectories are no engine's."""


def configuration(kind: type[Any], folder: Any, dtype: str, **settings: Any) -> Any:
    common = {"model": {"base": str(folder), "dtype": dtype}, "data": {"world": {}}, "store": {"uri": "file:///unused"}}
    own = {"max_logprob_gap": GAP, "max_turns": 2, "max_turn_tokens": WRITTEN // 2} if kind is GRPOConfig else {}
    sizes = {"max_tokens": LENGTH, "micro_batch_tokens": 2 * LENGTH}
    return kind.model_validate(common | sizes | own | settings)
