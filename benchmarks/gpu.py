"""Measures rollouts and updates at the size of Qwen2.5-VL-7B on a GPU, beside what the device could do.

    python benchmarks/gpu.py [--small] [--repetitions 2]

Random weights of that shape in bfloat16, made on the device. A step: 64 trajectories at once (8 groups of 8) of four turns
of 256 tokens and three tool calls, each with a 448-pixel image, on forced work (benchmarks/trl.py); then an update in
passes of 16,384 tokens. Generated tokens per second of the whole rollout, prompts and images included, are compared with a
ceiling: every decode step reads the weights of the language model and each key and value once, a group's prompt once, at the
bandwidth that copying reaches. Utilisation of the update counts 6 operations per parameter and token, as published figures do.

Without a GPU, or with --small, the same code runs at a small size on the CPU; figures of the GPU are then written as
"not measured", and no goal is claimed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import outcome

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "versus"))

import build  # noqa: E402 (beside the sides of the comparison)
import forced  # noqa: E402
import gog_side  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
import trl  # noqa: E402 (benchmarks/trl.py)
import weights  # noqa: E402
from workload import Workload  # noqa: E402

from gog import exclusion  # noqa: E402
from gog.trajectory import Trajectory  # noqa: E402
from gog_recipes.estimate import published  # noqa: E402
from gog_recipes.models import policy_model  # noqa: E402
from gog_recipes.runtime import flops  # noqa: E402
from gog_recipes.runtime.learner import StepRollout  # noqa: E402

MODEL = "Qwen2.5-VL-7B"
WORK = Workload(groups=8, group_size=8, calls=3, turn_tokens=256, side=448, steps=4)
SMALL = Workload(groups=1, group_size=4, calls=2, turn_tokens=16, side=112, steps=4)
PASS_TOKENS = {False: 16_384, True: 1_024}
"""Tokens of a pass of the update, by whether the size is small."""
DECODE, UTILISATION = 0.6, 0.4
"""Generated tokens per second ÷ ceiling, and utilisation of the update, at least."""
COPIED = 4 << 30
"""Bytes that are copied to measure the bandwidth; a sixteenth of it on a CPU."""
UNMEASURED = "not measured"


def sizes(small: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sizes of the language model and of the vision tower."""
    if small:
        return weights.TEXT, weights.VISION
    config = published.CONFIGS[MODEL]
    left_out = {"model_type", "rope_scaling", "rope_theta"}
    text = {key: value for key, value in config["text_config"].items() if key not in left_out}
    return text, config["vision_config"]


def make_side(folder: Path, work: Workload, device: torch.device, *, small: bool) -> gog_side.Side:
    """The policy with its engine, on the device."""
    dtype = torch.float32 if small else torch.bfloat16
    shape = build.write_without_weights(folder, work, *sizes(small))
    shape._attn_implementation = "sdpa"
    torch.manual_seed(0)
    with device:
        base = transformers.Qwen2_5_VLForConditionalGeneration._from_config(shape, dtype=dtype)
    model = {"base": str(folder), "dtype": str(dtype).removeprefix("torch.")}
    # A random model in bfloat16 says nothing about how far an engine may be from the trainer.
    return gog_side.Side(
        folder,
        base.requires_grad_(False).eval(),
        model=model,
        micro_batch_tokens=PASS_TOKENS[small],
        max_logprob_gap=1e6,
    )


def wait_for(device: torch.device) -> None:
    """Waits until the device has done what it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def bandwidth(device: torch.device) -> float:
    """Bytes per second, read and written, of the best of several large copies."""
    size = COPIED if device.type == "cuda" else COPIED // 16
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(6):
        wait_for(device)
        begun = time.perf_counter()
        target.copy_(source)
        wait_for(device)
        best = min(best, time.perf_counter() - begun)
    return 2 * size / best


def ceiling(side: gog_side.Side, group: list[Trajectory], copied: float) -> float:
    """Tokens per second of decoding at this bandwidth: a step reads weights, keys and values once."""
    core = policy_model.core(side.model)
    read = [*policy_model.language_model(side.model).layers.parameters(), core.lm_head.weight]
    prompt = len(group[0].segments[0].tokens)
    rest = len(group[0].tokens()) - prompt
    work = side.work
    cached = work.groups * prompt + work.trajectories * rest / 2  # tokens, in the middle of a trajectory
    per_step = sum(each.nbytes for each in read) + cached * side.engine.decoder.layout.token_bytes
    return work.trajectories / (per_step / copied)


def step(side: gog_side.Side, device: torch.device) -> dict[str, Any]:
    """Seconds and tokens of a rollout and its update."""
    wait_for(device)
    begun = time.perf_counter()
    groups = asyncio.run(side.play(forced.LocalTools()))
    wait_for(device)
    played = time.perf_counter()
    asyncio.run(side.engine.rest())
    started = time.perf_counter()
    update = side.learner.update(StepRollout(groups, groups, exclusion.count(groups), 0), step=1)
    wait_for(device)
    trained = time.perf_counter()
    side.step += 1
    asyncio.run(side.engine.switch(side.model, side.step))
    generated = side.engine.take_counters().generated
    return {"rollout": played - begun, "train": trained - started, "generated": generated, "trained": update.tokens,
            "group": groups[0]}  # fmt: skip


def figures(side: gog_side.Side, device: torch.device, repetitions: int) -> dict[str, Any]:
    """What was measured; the first step is a warm-up."""
    copied = bandwidth(device)
    steps = [step(side, device) for _ in range(repetitions + 1)][1:]
    speed = flops.throughput(side.model, device, 1)
    rates = [speed.read(each["trained"], each["train"]) for each in steps]
    most = ceiling(side, steps[0]["group"], copied)
    generated = statistics.median(each["generated"] / each["rollout"] for each in steps)
    return {
        "parameters": speed.parameters,
        "trajectory_tokens": len(steps[0]["group"][0].tokens()),
        "copy_gb_per_second": round(copied / 1e9, 1),
        "generated_tokens_per_second": round(generated, 1),
        "ceiling_tokens_per_second": round(most, 1),
        "share_of_ceiling": round(generated / most, 3),
        "trained_tokens_per_second": round(statistics.median(rate for rate, _ in rates), 1),
        "mfu": None if rates[0][1] is None else round(statistics.median(float(used or 0) for _, used in rates), 3),
        "peak_gb": round(torch.cuda.max_memory_allocated(device) / 1e9, 1) if device.type == "cuda" else None,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a small model on the CPU, to see that the script works")
    parser.add_argument("--repetitions", type=int, default=2)
    given = parser.parse_args()
    small = given.small or not torch.cuda.is_available()
    device = torch.device("cpu" if small else "cuda")
    if small:
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    with tempfile.TemporaryDirectory() as scratch:
        work = SMALL if small else WORK
        side = make_side(
            Path(scratch), Workload(**{**work.__dict__, "steps": given.repetitions + 1}), device, small=small
        )
        found = figures(side, device, given.repetitions)
    for key, value in found.items():
        print(f"{key:28} {UNMEASURED if value is None else value}{' (small, on the CPU)' if small else ''}")
    name = "CPU" if small else torch.cuda.get_device_name(device)
    report = {"machine": trl.machine() | {"device": name}, "small" if small else "gpu": found}
    if small:
        report["gpu"] = dict.fromkeys(found, UNMEASURED)
        print(f"the figures at the size of {MODEL} on a GPU: {UNMEASURED}")
        return outcome.finish("gpu", report, {})
    return outcome.finish(
        "gpu", report,
        {f"generated >= {DECODE} of the ceiling": found["share_of_ceiling"] >= DECODE,
         f"utilisation of the update >= {UTILISATION}": (found["mfu"] or 0) >= UTILISATION},
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
