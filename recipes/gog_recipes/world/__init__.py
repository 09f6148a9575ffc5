"""The embedded world: a dataset generator, and a model small enough to train in it on two cores."""

from pathlib import Path

TINY = Path(__file__).parent / "tiny"
"""The tiny base model in Hugging Face form: `base: tiny`."""
