"""Run folders for the report's tests: made through the real store, archives and trajectories, with invented contents.

`make_run` writes a whole run; `stages` leaves some out, `steps` shortens the training. Everything follows from a seed.
"""

from __future__ import annotations

import itertools
import json
import random
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PILImage
from PIL import ImageDraw

from gog import behaviour, failure_rules, levels, rewards, stats, store, trajectory_zip
from gog.images import Image
from gog.trajectory import Candidate, Failure, Observation, Result, Reward, Segment, Trajectory, Turn
from support.report_objects import ALL, EVENTS, run_objects

KINDS = ("look", "text", "name", "fact1", "fact")
POLICIES = ("direct", "whole-image", "sft", "grpo")
COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 80, 230), "yellow": (230, 210, 40)}


@dataclass
class Scene:
    """An image with rings and discs of known boxes."""

    image: Image
    boxes: list[tuple[float, float, float, float]]
    crops: list[Image]
    names: list[str]


@dataclass
class Maker:
    """Draws everything from one generator; remembers the images it made."""

    rng: random.Random
    images: dict[str, Image] = field(default_factory=dict)

    def scene(self, side: int = 112) -> Scene:
        canvas = PILImage.new("RGB", (side, side), (self.rng.choice((20, 40, 60, 80)),) * 3)
        pen, boxes, names = ImageDraw.Draw(canvas), [], []
        for cell in sorted(self.rng.sample(range(16), self.rng.randint(1, 4))):
            x, y, r = 28 * (cell % 4) + 14, 28 * (cell // 4) + 14, self.rng.choice((8, 9, 10))
            colour, form = self.rng.choice(list(COLOURS)), self.rng.choice(("ring", "circle"))
            around = (x - r, y - r, x + r, y + r)
            width = 4 if form == "ring" else r
            pen.ellipse(around, outline=COLOURS[colour], width=width)
            pen.rectangle((x - 2, y - 2, x + 1, y + 1), fill=self.rng.choice(list(COLOURS.values())))
            boxes.append((x - r, y - r, x + r + 1, y + r + 1))
            names.append(f"{colour} {form}")
        image = Image(np.asarray(canvas))
        crops = [Image(np.asarray(canvas.crop(tuple(map(int, box))).resize((28, 28)))) for box in boxes]
        for each in (image, *crops):
            self.images[each.hash] = each
        return Scene(image, [tuple(map(float, box)) for box in boxes], crops, names)

    def trajectory(self, question: int, policy: str, *, skill: float, step: int = 0, sample: int = 0) -> Trajectory:
        """An episode of a question; skill is the chance of the right candidate and the right answer."""
        scene = Maker(random.Random(f"scene {question}"), self.images).scene()
        kind, target, right = KINDS[question % len(KINDS)], question % len(scene.names), self.rng.random() < skill
        failures: list[Failure] = []
        turns = self._turns(kind, policy, scene, target, right, failures)
        gold = f"n{question % 100:02d}"
        turns.append(self._turn("answer", "answer", gold if right else f"n{(question + 7) % 100:02d}", "height n12"))
        stopped = self.rng.random() < 0.04
        if stopped:
            cut = "cut off before its closing tag"
            turns[-1] = Turn(text="<think>several several", action="none", well_formed=False, error=cut)
        asked = "name" if kind == "name" else "height"
        trajectory = Trajectory(
            id=f"{policy}-{step}-q{question}-{sample}",
            question_id=f"test-{question:05d}",
            question=f"what is the {asked} of the {scene.names[target]} ?",
            answers=(gold,),
            image=scene.image.hash,
            kind=kind,
            region=scene.boxes[target],
            policy=policy,
            step=step,
            sample=sample,
            turns=tuple(turns),
            segments=self._segments(turns),
            stop="max_turn_tokens" if stopped else "answer",
            answer=None if stopped else turns[-1].argument,
            failures=tuple(failures),
            seconds=round(self.rng.uniform(0.2, 1.4), 3),
            level="2" if policy == "grpo" and step else "",
            advantage=0.8 if right else -1.2,
        )
        reward = rewards.reward(float(right and not stopped), trajectory.well_formed)
        trajectory = trajectory.model_copy(update={"reward": reward})
        return trajectory.model_copy(update={"excluded": failure_rules.excluded(trajectory, "exclude")})

    def _turns(
        self, kind: str, policy: str, scene: Scene, target: int, right: bool, failures: list[Failure]
    ) -> list[Turn]:
        turns: list[Turn] = []
        name = f"t{self.rng.randint(0, 215):03d}"
        if policy != "direct" and kind in ("name", "fact", "fact1"):
            if policy == "whole-image" or kind == "fact1" or self.rng.random() < 0.15:
                turns.append(self._search("glance", "<img>", name, failures))
            else:
                turns += self._gaze(scene, target, right, name, failures)
        if policy != "direct" and kind in ("fact", "fact1", "text"):
            turns.append(
                self._search("text", name, f"founded n12 , height n{self.rng.randint(0, 99):02d} , price n40", failures)
            )
        return turns

    def _gaze(self, scene: Scene, target: int, right: bool, name: str, failures: list[Failure]) -> list[Turn]:
        candidates = tuple(
            Candidate(number=n, box=box, score=round(0.97 - 0.11 * n, 2), label=scene.names[target], crop=crop.hash)
            for n, (box, crop) in enumerate(zip(scene.boxes, scene.crops), 1)
        )
        seen = Observation(
            text=" ".join(f"{c.number} <|image_pad|>" for c in candidates), tool="grounding", candidates=candidates,
            images=tuple(c.crop for c in candidates), seconds=0.012, attempts=1,
        )  # fmt: skip
        ground = self._turn("ground", "img_search", scene.names[target], "several").model_copy(
            update={"observation": seen}
        )
        number = target + 1 if right else self.rng.randint(1, len(candidates))
        gaze = self._search("gaze", f"#{number}", name, failures)
        return [ground, gaze.model_copy(update={"selected": (number,), "argument": ""})]

    def _search(self, action: str, query: str, found: str, failures: list[Failure]) -> Turn:
        tool = "textSearch" if action == "text" else "imageSearch"
        turn = self._turn(action, "text_search" if action == "text" else "img_search", query, "one")
        if self.rng.random() < 0.05:
            failure = Failure(tool=tool, kind="timeout", message="no answer within 10.0 s, tried 3 times")
            failures.append(failure)
            seen = Observation(text="tool failed", tool=tool, failures=(failure,), seconds=30.2, attempts=3)
        else:
            results = tuple(
                Result(title=found, url=f"https://example.org/{n}", text=f"page {n} of {found}") for n in range(2)
            )
            seen = Observation(
                text=found,
                tool=tool,
                results=results,
                seconds=0.021,
                attempts=self.rng.choice((1, 1, 1, 2)),
                cached=self.rng.random() < 0.3,
            )
        return turn.model_copy(update={"observation": seen})

    def _turn(self, action: Any, tag: str, argument: str, thought: str) -> Turn:
        text = f"<think>{thought}</think><{tag}>{argument}</{tag}>"
        shown = "" if argument == "<img>" else argument
        return Turn(
            text=text, action=action, argument=shown, reasoning=thought, seconds=round(self.rng.uniform(0.01, 0.1), 4)
        )

    def _segments(self, turns: Sequence[Turn]) -> tuple[Segment, ...]:
        segments = [Segment(source="prompt", tokens=(1, 2, 3))]
        for turn in turns:
            tokens = tuple(range(max(3, len(turn.text) // 6)))
            segments.append(
                Segment(
                    source="model", tokens=tokens, logprobs=tuple(-self.rng.expovariate(2.5) for _ in tokens), version=3
                )
            )
            if turn.observation:
                segments.append(Segment(source="observation", tokens=(4, 5, 6, 7)))
        return tuple(segments)


def make_run(
    root: Path,
    *,
    name: str = "world",
    stages: Sequence[str] = ALL,
    failed: str = "",
    running: str = "",
    steps: int = 30,
    questions: int = 40,
    arms: Sequence[str] = (),
    spec: Mapping[str, Any] | None = None,
    edit: Any = None,
) -> Path:
    """A run folder; `edit` may change each evaluated trajectory. Returns its path."""
    folder = root / name
    kept = store.Store(folder / "store")
    run_objects(folder / "objects", name, stages, failed, running, arms, spec or {}, steps)
    events = "".join(json.dumps(event) + "\n" for event in EVENTS)
    (folder / "events.jsonl").write_text(events + '{"time": "2026-03-14T09:3')
    maker = Maker(random.Random(name))
    with tempfile.TemporaryDirectory() as scratch:
        writer = _Writer(kept, maker, Path(scratch), steps, questions, edit)
        for stage in stages:
            if stage != failed or stage == "grpo":  # a training that fails has left checkpoints
                getattr(writer, stage)(stage)
        for arm in arms:
            writer.grpo(f"grpo-{arm}", gain=0.12)
            writer.evaluate(f"evaluate-{arm}", policies=("grpo",))
    return folder


@dataclass
class _Writer:
    kept: store.Store
    maker: Maker
    scratch: Path
    steps: int
    questions: int
    edit: Any

    def curate(self, key: str) -> None:
        made = [self.maker.trajectory(n, "teacher", skill=0.8) for n in range(24)]
        meta = {
            "trajectories": len(made),
            "behaviour": behaviour.shares(made),
            "teacher_accuracy": 0.5,
            "seconds": 11.4,
        }
        self.kept.publish(key, 1, {"trajectories.zip": self._archive(made)}, meta=meta)

    def sft(self, key: str) -> None:
        rows = [
            {"step": n, "total": 60, "loss": 2.3 * 0.93**n + 0.32 + self.maker.rng.uniform(-0.04, 0.04), "grad_norm": 1 + 2 / n,
             "learning_rate": 1e-3 * min(1, n / 6), "tokens": 900, "tokens_per_second": 4100, "seconds": 0.3}
            for n in range(1, 61)
        ]  # fmt: skip
        self.kept.publish(key, 60, {"metrics.jsonl": self._lines("metrics.jsonl", rows)})

    def stratify(self, key: str) -> None:
        solved = [min(5, int(self.maker.rng.betavariate(0.9, 0.9) * 6)) for _ in range(400)]
        graded = [
            levels.Graded(question_id=f"train-{n}", solved=k, valid=5, level=levels.level(k, 5))
            for n, k in enumerate(solved)
        ]
        path = self._lines("levels.jsonl", [line.model_dump() for line in graded])
        counts = {level: sum(line.level == level for line in graded) for level in ("easy", "1", "2")}
        self.kept.publish(
            key, 1, {"levels.jsonl": path}, meta={"levels": counts, "unsolved": solved.count(0), "seconds": 20.3}
        )

    def grpo(self, key: str, gain: float = 0.4) -> None:
        rows: list[dict[str, Any]] = []
        for step in range(1, self.steps + 1):
            share = step / self.steps
            rows.append(_grpo_row(step, self.steps, share, gain, self.maker.rng))
            if step % max(1, self.steps // 5) == 0:
                made = [
                    self.maker.trajectory(n, "grpo", skill=0.4 + gain * share, step=step, sample=s)
                    for n in range(100 + step, 108 + step)
                    for s in range(4)
                ]
                files = {"metrics.jsonl": self._lines("metrics.jsonl", rows), "trajectories.zip": self._archive(made)}
                self.kept.publish(key, step, files, meta={"total": self.steps})

    def evaluate(self, key: str, policies: Sequence[str] = POLICIES) -> None:
        skill = {"direct": 0.12, "whole-image": 0.42, "sft": 0.55, "grpo": 0.8}
        made = {p: [self.maker.trajectory(n, p, skill=skill[p]) for n in range(self.questions)] for p in policies}
        if self.edit:
            made = {policy: [self.edit(item) for item in items] for policy, items in made.items()}
        results = {"rows": [_row(p, items) for p, items in made.items()], "comparisons": _comparisons(made)}
        path = self.scratch / "results.json"
        path.write_text(json.dumps(results))
        shown = [item for items in made.values() for item in items]
        self.kept.publish(key, 1, {"results.json": path, "trajectories.zip": self._archive(shown)})

    def _archive(self, made: Sequence[Trajectory]) -> Path:
        path = self.scratch / "trajectories.zip"
        trajectory_zip.write(path, made, self.maker.images)
        return path

    def _lines(self, name: str, rows: Sequence[Mapping[str, Any]]) -> Path:
        path = self.scratch / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path


def _grpo_row(step: int, total: int, share: float, gain: float, rng: random.Random) -> dict[str, Any]:
    accuracy = 0.35 + gain * share + rng.uniform(-0.06, 0.06)
    return {
        "step": step, "total": total, "reward_mean": 0.9 * accuracy + 0.095, "reward_std": 0.42 - 0.1 * share,
        "accuracy_mean": accuracy, "format_mean": 0.95 + 0.04 * share, "kl": 0.004 * share, "clip_frac": 0.001 * rng.random(),
        "grad_norm": 0.4 + 0.2 * rng.random(), "learning_rate": 2e-4, "tool_failure_ratio": 0.002 * rng.random(),
        "attempt_failure_ratio": 0.05 + 0.02 * rng.random(), "trajectories": 160, "excluded": rng.choice((0, 0, 1, 2)),
        "frac_reward_zero_std": 0.2 + 0.2 * share, "behaviour": {"none": 0.3 - 0.2 * share, "single": 0.3, "mixed": 0.4 + 0.2 * share},
        "choice_accuracy": None if step == 3 else 0.5 + 0.4 * share, "generated_tokens": 4100 + 200 * rng.random(), "prefill_ratio": 1.1,
        "logp_diff_max": 1e-5, "logp_diff_mean": 1e-6, "seconds": 2.1, "rollout_seconds": 1.2, "train_seconds": 0.9,
        "seconds_rollout": 0.8 - 0.1 * share, "seconds_tools": 0.3 + 0.1 * share, "seconds_judge": 0.1, "seconds_reference": 0.2,
        "seconds_train": 0.6, "seconds_sync": 0.05, "seconds_idle": 0.05, "trainer_idle": 0.6, "engine_idle": 0.6,
        "generated_tokens_per_second": 3400.0, "tokens_per_second": 9000.0, "host_memory_peak_bytes": 2 * 10**9,
    }  # fmt: skip


def _row(policy: str, items: Sequence[Trajectory]) -> dict[str, Any]:
    scores = [reward_of(item) for item in items]
    seconds = [item.seconds for item in items]
    by_kind = {kind: [s for s, item in zip(scores, items) if item.kind == kind] for kind in KINDS}
    choices = [float(c) for item in items if (c := behaviour.chose_right(item)) is not None]
    return {
        "policy": policy,
        "benchmark": "test",
        "n": len(items),
        "accuracy": stats.mean(scores),
        "ci95": list(stats.wilson(int(sum(scores)), len(items))),
        "format_mean": stats.mean([float(item.well_formed) for item in items]),
        "tool_calls_mean": stats.mean([item.tool_calls for item in items]),
        "latency_p50_s": stats.percentile(seconds, 0.5),
        "latency_p95_s": stats.percentile(seconds, 0.95),
        "behaviour": behaviour.shares(items),
        "choice_accuracy": stats.mean(choices) if choices else None,
        "tool_failure_ratio": 0.004,
        "by_kind": {kind: {"n": len(found), "accuracy": stats.mean(found)} for kind, found in by_kind.items()},
    }


def _comparisons(made: Mapping[str, Sequence[Trajectory]]) -> list[dict[str, Any]]:
    found = []
    for b, a in itertools.combinations(made, 2):
        scores = ([reward_of(item) for item in made[name]] for name in (a, b))
        difference, low, high = stats.paired_bootstrap(*scores, resamples=500)
        found.append({"a": a, "b": b, "n": len(made[a]), "difference": difference, "ci95": [low, high]})
    return found


def reward_of(item: Trajectory) -> float:
    return item.reward.accuracy or 0.0 if item.reward else 0.0


def rewarded(item: Trajectory, accuracy: float) -> Trajectory:
    return item.model_copy(update={"reward": Reward(accuracy=accuracy, format=1.0, total=0.9 * accuracy + 0.1)})
