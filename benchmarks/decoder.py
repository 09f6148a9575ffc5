"""What do gaps among the conversations of a step cost, and how many bytes do cache and weights take? Against the goals.

    python benchmarks/decoder.py [--rows 16] [--length 8192] [--rounds 7]

A random Qwen2.5-VL of two layers decodes with `rows` conversations of `length` cached tokens: all of them; all but one
in the middle, as when one waits for its tool; every second one. Rounds are interleaved, and CPU time is measured, so
other work on the machine changes little. Bytes of the 7B and 8B shapes are computed from their configurations.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time

import outcome

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from gog_recipes.models import decoder_weights, kv_cache
from gog_recipes.models.decoder import Decoder, StepInputs

GOAL = 1.2
"""Time of a step with a gap among its conversations, at most, in times of one without."""
SHAPES = {
    "Qwen2.5-VL-7B": kv_cache.Layout(28, 4, 128, torch.bfloat16, torch.device("cpu")),
    "Qwen3-VL-8B": kv_cache.Layout(36, 8, 128, torch.bfloat16, torch.device("cpu")),
}
ROWS, LENGTH, USED = 160, 8192, 3000
"""Conversations of a step, their most tokens, and the tokens that they have on average."""


def random_model() -> torch.nn.Module:
    """Two layers with eight heads of 128, grouped four by four."""
    text = {
        "hidden_size": 1024, "intermediate_size": 2048, "num_hidden_layers": 2, "num_attention_heads": 8,
        "num_key_value_heads": 2, "vocab_size": 2000, "max_position_embeddings": 32768,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    }  # fmt: skip
    vision = {"depth": 1, "hidden_size": 64, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 1024}
    torch.manual_seed(0)
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision)).eval()


def filled(decoder: Decoder, rows: int, length: int) -> list[kv_cache.Blocks]:
    """Conversations with `length` tokens in the cache, less one, their blocks handed out as they grew together."""
    cache = decoder.cache
    conversations: list[kv_cache.Blocks] = [[] for _ in range(rows)]
    for tokens in range(cache.block, length + 1, cache.block):
        for blocks in conversations:
            assert cache.reserve(blocks, tokens)
    for pool in (*cache.keys, *cache.values):
        pool.normal_()
    return conversations


def seconds(decoder: Decoder, chosen: list[kv_cache.Blocks], length: int) -> float:
    """CPU time of one decode step."""
    b, rows = len(chosen), [kv_cache.Row(blocks) for blocks in chosen]
    ids, positions = torch.ones((b, 1), dtype=torch.long), torch.full((3, b, 1), length - 1)
    inputs = StepInputs(rows, [length - 1] * b, [1] * b, ids, positions, None, None)
    begun = time.process_time()
    decoder.step(inputs)
    return time.process_time() - begun


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--length", type=int, default=LENGTH)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(1)
    decoder_weights.FUSED_BYTES = 0
    model = random_model()
    decoder = Decoder(model)
    decoder.make_cache(given.length, 2 * given.rows * given.length * decoder.layout.token_bytes)
    empty = decoder.cache.bytes
    rows = filled(decoder, given.rows, given.length)
    middle = given.rows // 2
    arms = {"all": rows, "one gap": rows[:middle] + rows[middle + 1 :], "every second": rows[::2]}
    times: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(given.rounds + 1):
        for name, chosen in arms.items():
            times[name].append(seconds(decoder, chosen, given.length))
    step = {name: statistics.median(values[1:]) for name, values in times.items()}  # the first is a warm-up
    found: dict[str, object] = {f"step_ms, {name}": round(1e3 * value, 1) for name, value in step.items()}
    ratio = step["one gap"] / step["all"]
    found |= {"gap_ratio": round(ratio, 3), "cache_bytes_before_the_first_token": empty}
    found["cache_bytes_full"] = decoder.cache.bytes
    for name, layout in SHAPES.items():
        blocks = -(-USED // kv_cache.BLOCK_TOKENS)
        found[f"cache_gb, {name}, {ROWS} x {USED} tokens"] = round(
            ROWS * blocks * kv_cache.BLOCK_TOKENS * layout.token_bytes / 1e9, 1
        )
        found[f"cache_gb, {name}, {ROWS} x {LENGTH} up front"] = round(ROWS * LENGTH * layout.token_bytes / 1e9, 1)
    width = max(map(len, found))
    for key, value in found.items():
        print(f"{key:{width}} {value:>12}")
    goals = {f"gap <= {GOAL} x": ratio <= GOAL, "nothing is allocated up front": empty == 0}
    return outcome.finish("decoder", found, goals)


if __name__ == "__main__":
    sys.exit(main())
