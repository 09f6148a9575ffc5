"""The embedded world: a dataset generator, and a model small enough to be trained in it on two cores."""

from pathlib import Path

TINY = Path(__file__).parent / "tiny"
"""The tiny base model in Hugging Face form: what `base: tiny` stands for."""
