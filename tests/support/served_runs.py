"""Runs of SFT alone that serve their result by an agent: poor but quick, to test how versions are served."""

from __future__ import annotations

from typing import Any

CHATS = 10
"""Of a canary."""


def manifest(name: str, seed: int, *, minimum: float = 0.0, **serve: Any) -> dict[str, Any]:
    """A run in the tiny world that offers its version to `assistant`.

    Args:
        name: of the run.
        seed: of its stages.
        minimum: accuracy that the gate asks for.
        serve: further fields of `serve`.
    """
    spec = {
        "model": {"base": "tiny"},
        "data": {"world": {"train": 60, "test": 24}},
        "seed": seed,
        "checkTools": False,
        "stages": {
            "skip": ["curate", "stratify", "grpo"],
            "sft": {"epochs": 1, "demonstrations": "sample"},
            "evaluate": {"policies": ["sft"], "bootstrap": 100},
        },
        "serve": {
            "agent": {"name": "assistant"},
            "gate": {"minAccuracy": minimum},
            "canary": {"share": 0.5, "chats": CHATS, "maxSlowdown": 100},
            **serve,
        },
    }
    return {"apiVersion": "gog.dev/v1alpha1", "kind": "GoGRun", "metadata": {"name": name}, "spec": spec}


def chat(image: str) -> dict[str, Any]:
    """A request about an image, `data:image/png;base64,…`."""
    parts = [{"type": "image_url", "image_url": {"url": image}}, {"type": "text", "text": "what is the height ?"}]
    return {"messages": [{"role": "user", "content": parts}]}
