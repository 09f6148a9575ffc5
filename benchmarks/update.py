"""Measures what an update of GRPO costs in CPU time, and what sharing the prompts of groups saves of it.

    python benchmarks/update.py [--repeats 5] [--groups 2] [--size 8] [--kl 0] [--tokens 16384]

Makes updates of the tiny policy on random trajectories of the shape of a run with images: a prompt of about 270 tokens,
then four turns of 32 tokens with three observations of 40 between them, each with an image. Two arms alternate: groups
whose trajectories have the same prompt, and the same trajectories with prompts that differ in one token, of which none is
shared. One thread. The first update of each arm is a warm-up. The policy is small, so the figures say how arms compare,
not how long an update of a published model takes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time

import outcome

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from gog import exclusion
from gog.images import Image
from gog.spec import GRPOConfig, LoraSettings, ModelSpec
from gog.trajectory import Segment, Trajectory, Turn
from gog_recipes import losses
from gog_recipes.models import lora, policy_model
from gog_recipes.runtime.learner import Learner, StepRollout
from gog_recipes.runtime.ranks import SINGLE

CPU = torch.device("cpu")
PROMPT, TURNS, TURN, OBSERVATION, SIDE = 270, 4, 32, 40, 112
GOAL = 1.5
"""How many times less CPU time an update with shared prompts takes."""


class Maker:
    """Makes random trajectories."""

    def __init__(self, policy: torch.nn.Module) -> None:
        self.processor = policy_model.load_processor(ModelSpec(base="tiny"))
        self.vision = policy_model.vision_of(policy, self.processor)
        self.rng = np.random.default_rng(0)
        self.words = sorted(set(range(20, 200)) - set(self.processor.suppress_tokens))

    def groups(self, count: int, size: int) -> list[list[Trajectory]]:
        """Groups whose trajectories begin with the same prompt."""
        return [self._group(number, size) for number in range(count)]

    def apart(self, groups: list[list[Trajectory]]) -> list[list[Trajectory]]:
        """The same trajectories with prompts that differ in their first token."""
        return [[self._changed(item, place) for place, item in enumerate(group)] for group in groups]

    def _group(self, number: int, size: int) -> list[Trajectory]:
        prompt = self._given("prompt", PROMPT)
        advantages = np.linspace(-1, 1, size)
        return [self._trajectory(f"{number}/{place}", prompt, float(advantages[place])) for place in range(size)]

    def _trajectory(self, name: str, prompt: Segment, advantage: float) -> Trajectory:
        segments = [prompt]
        for turn in range(TURNS):
            logprobs = tuple(float(value) for value in -4 - self.rng.random(TURN))
            segments.append(Segment(source="model", tokens=self._some(TURN), logprobs=logprobs))
            if turn + 1 < TURNS:
                segments.append(self._given("observation", OBSERVATION))
        return Trajectory(
            id=name, question_id="", question="", answers=("",), image="", stop="answer", advantage=advantage,
            turns=(Turn(text="", action="answer"),), segments=tuple(segments),
        )  # fmt: skip

    def _given(self, source: str, count: int) -> Segment:
        image = Image(self.rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8))
        self.vision.add([image])
        pads = (self.processor.image_pad,) * self.vision.tokens(image.hash)
        words = self._some(max(2, count - len(pads)))
        return Segment(source=source, tokens=words[:1] + pads + words[1:], images=(image.hash,))  # type: ignore[arg-type]

    def _some(self, count: int) -> tuple[int, ...]:
        return tuple(int(token) for token in self.rng.choice(self.words, count))

    def _changed(self, item: Trajectory, place: int) -> Trajectory:
        prompt = item.segments[0]
        other = prompt.model_copy(update={"tokens": (self.words[place], *prompt.tokens[1:])})
        return item.model_copy(update={"segments": (other, *item.segments[1:])})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--groups", type=int, default=2)
    parser.add_argument("--size", type=int, default=8)
    parser.add_argument("--kl", type=float, default=0.0)
    parser.add_argument("--tokens", type=int, default=16_384, help="of a pass at most")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    policy = lora.add(policy_model.load_base(ModelSpec(base="tiny"), CPU), LoraSettings()).eval()
    maker = Maker(policy)
    shared = maker.groups(given.groups, given.size)
    arms = {"shared": shared, "apart": maker.apart(shared)}
    needed = {"model": {"base": "tiny"}, "data": {"world": {}}, "store": {"uri": "file:///unused"}}
    cfg = GRPOConfig.model_validate(
        needed | {"max_logprob_gap": 1e6, "kl_coef": given.kl, "micro_batch_tokens": given.tokens}
    )
    sgd = torch.optim.SGD([each for each in policy.parameters() if each.requires_grad], lr=0.0)
    learner = Learner(cfg, losses.load("grpo"), policy, maker.processor, maker.vision, sgd, SINGLE)
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(given.repeats + 1):
        for name, groups in arms.items():
            rollout = StepRollout(groups, groups, exclusion.count(groups), 0)
            started = time.process_time()
            learner.update(rollout, step=1)
            seconds[name].append(time.process_time() - started)
            sgd.zero_grad(set_to_none=True)
    medians = {name: statistics.median(each[1:]) for name, each in seconds.items()}
    total = sum(len(segment.tokens) for group in shared for item in group for segment in item.segments)
    unique = total - sum(len(group[0].segments[0].tokens) * (len(group) - 1) for group in shared)
    found = {
        "tokens": total,
        "unique_tokens": unique,
        "ratio": round(medians["apart"] / medians["shared"], 3),
        **{f"{name}_cpu_seconds": round(value, 4) for name, value in medians.items()},
        **{f"{name}_range": [round(min(each[1:]), 4), round(max(each[1:]), 4)] for name, each in seconds.items()},
    }
    width = max(map(len, found))
    for key, value in found.items():
        print(f"{key:{width}} {value}")
    return outcome.finish("update", found, {f"shared prompts save >= {GOAL} x": found["ratio"] >= GOAL})


if __name__ == "__main__":
    sys.exit(main())
