"""gog's side of the comparison: steps of GRPO on forced work, each when the driver asks for it.

    python gog_side.py FOLDER       commands on stdin, answers on stdout (measure.Channel)

A step is that of the recipe: play the questions, let the engine rest, check the policy against the engine, update, give
the engine the new weights. `http` plays it with gog's own HTTP clients and tool servers at their default settings,
otherwise tools are functions in this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import forced
import measure
import peft
import torch
from safetensors.torch import load_file, save_file
from workload import Workload

from gog import dataset, exclusion
from gog.engine import Limits
from gog.spec import GRPOConfig, ToolsSpec
from gog.tool_client import Toolbox
from gog.trajectory import Trajectory
from gog_recipes import losses
from gog_recipes.models import lora, policy_model
from gog_recipes.rollout.engine import Parts
from gog_recipes.rollout.question_pool import QuestionPool
from gog_recipes.rollout.rollouts import Rollouts
from gog_recipes.rollout.transformers import TransformersEngine
from gog_recipes.runtime import canary, optimizer
from gog_recipes.runtime.learner import Learner, StepRollout
from gog_recipes.runtime.ranks import SINGLE

CPU = torch.device("cpu")


class Side:
    """A policy in training, with its engine.

    Args:
        folder: of the work
        base: the model; None for the one in the folder, with the adapter there
        settings: of the stage that differ from its defaults
    """

    def __init__(self, folder: Path, base: Any = None, **settings: Any) -> None:
        self.folder, self.work = folder, Workload.load(folder)
        work = self.work
        needed = {"model": {"base": str(folder)}, "data": {"path": str(folder)}, "store": {"uri": "file:///unused"}}
        sizes = {"max_turn_tokens": work.turn_tokens, "group_size": work.group_size}
        chosen = {"loss": "dapo", "kl_coef": 0.0, "clip_grad_norm": 1e9, "learning_rate": work.learning_rate}
        self.cfg = GRPOConfig.model_validate({**needed, **sizes, **chosen, **settings})
        self.processor = policy_model.folder_processor(folder, "full")
        self.processor.suppress_tokens = list(work.suppressed)
        model = policy_model.load_base(self.cfg.model, CPU) if base is None else base
        self.model = lora.add(model, self.cfg.lora).eval()
        if base is None:
            self._load_adapter()
        self.vision = policy_model.vision_of(self.model, self.processor, self.cfg.feature_cache_bytes)
        self.optimizer = optimizer.build(self.cfg.optimizer, self.model.parameters(), self.cfg.learning_rate)
        loss = losses.load(self.cfg.loss)
        self.learner = Learner(self.cfg, loss, self.model, self.processor, self.vision, self.optimizer, SINGLE)
        self.canary = canary.Canary(
            self.model, self.processor, self.vision, [], SINGLE, temperature=self.cfg.temperature, bound=None
        )
        limits = Limits(self.cfg.max_tokens, self.cfg.max_turn_tokens, self.cfg.temperature)
        capacity = max(self.cfg.concurrent_episodes, self.cfg.group_size)
        parts = Parts(self.model, self.processor, self.vision, limits, capacity, settings=self.cfg)
        self.engine = forced.ForcedEngine(TransformersEngine(parts), work)
        self.pool = QuestionPool(folder, dataset.read_questions(folder, "train"))
        self.step = self.asked = 0

    def resize(self, **sizes: int) -> None:
        """Changes sizes of the work from the next step on."""
        self.work = dataclasses.replace(self.work, **sizes)
        self.engine.work = self.work

    def _load_adapter(self) -> None:
        peft.set_peft_model_state_dict(self.model, load_file(self.folder / "adapter" / "adapter_model.safetensors"))

    async def play(self, toolbox: Any) -> list[list[Trajectory]]:
        """The groups of the next step with their fixed rewards."""
        questions = self.pool.questions[self.asked : self.asked + self.work.groups]
        self.asked += self.work.groups
        rollouts = Rollouts(self.engine, toolbox, self.cfg, self.pool, "bench", seed=0)
        played = await rollouts.play(questions, self.work.group_size, step=self.step + 1, policy="grpo")
        self.seen = rollouts.images
        return [
            [item.model_copy(update={"advantage": self.work.advantage(n)}) for n, item in enumerate(group)]
            for group in played.groups
        ]

    async def run(self, toolbox: Any) -> dict[str, Any]:
        """A step; what it cost and what work it was."""
        self.engine.take_counters()
        encoded, known = self.vision.encoded, len(self.vision)
        marks = measure.Marks()
        groups = await self.play(toolbox)
        await self.engine.rest()
        marks.mark("rollout")
        conversations = [canary.Conversation(item.id, item.segments) for group in groups for item in group]
        self.canary.check(conversations, version=self.step, where=f"step {self.step + 1}")
        marks.mark("check")
        self.learner.update(StepRollout(groups, groups, exclusion.count(groups), 0), step=self.step + 1)
        self.step += 1
        marks.mark("train")
        await self.engine.switch(self.model, self.step)
        marks.mark("switch")
        counters = self.engine.take_counters()
        trajectories = [item for group in groups for item in group]
        return {
            **marks.report(),
            "tokens": [forced.count(item.segments, self.processor.image_pad) for item in trajectories],
            "tool_calls": [item.tool_calls for item in trajectories],
            "prefilled": counters.prefilled,
            "unique": counters.unique,
            "passes": counters.steps,
            "encoded": self.vision.encoded - encoded,
            "images": len(self.vision) - known,
        }

    def replay(self) -> dict[str, Any]:
        """Plays a step and writes it down with the gradients of its update; no step of the optimizer is made.

        The other side's softmax has all tokens in it, so here none is left out of it either, and the log-probabilities
        that the engine recorded are replaced by the trainer's.
        """
        groups = asyncio.run(self.play(forced.LocalTools()))
        self.step += 1
        self.processor.suppress_tokens.clear()
        groups = [[self._with_own_logprobs(item) for item in group] for group in groups]
        found: dict[str, torch.Tensor] = {}
        hook = self.optimizer.register_step_pre_hook(lambda *_: found.update(self._gradients()))
        before = {name: each.detach().clone() for name, each in self._trained()}
        stats = self.learner.update(StepRollout(groups, groups, exclusion.count(groups), 0), step=1)
        hook.remove()
        with torch.no_grad():
            for name, each in self._trained():
                each.copy_(before[name])
        self.optimizer.state.clear()
        self.processor.suppress_tokens += self.work.suppressed
        asyncio.run(self.engine.switch(self.model, self.step))
        save_file(found, self.folder / "gog_gradients.safetensors")
        rows = [item.model_dump(include={"segments"}) for group in groups for item in group]
        shown = {image for row in rows for segment in row["segments"] for image in segment["images"]}
        pixels = {image: self.seen[image].pixels for image in shown}
        torch.save({"rows": rows, "pixels": pixels}, self.folder / "replay.pt")
        return {"loss": stats.loss}

    def _trained(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        return ((name, each) for name, each in self.model.named_parameters() if each.requires_grad)

    def _gradients(self) -> dict[str, torch.Tensor]:
        return {name: each.grad.clone() for name, each in self._trained() if each.grad is not None}

    @torch.no_grad()
    def _with_own_logprobs(self, item: Trajectory) -> Trajectory:
        batch = policy_model.collate([item.segments], self.processor, self.vision, CPU)
        values = policy_model.token_logprobs(self.model, batch, policy_model.features(batch, self.vision)).tolist()
        segments, at = [], 0
        for segment in item.segments:
            if segment.source == "model":
                own = tuple(values[at : at + len(segment.tokens)])
                segment, at = segment.model_copy(update={"logprobs": own}), at + len(segment.tokens)
            segments.append(segment)
        return item.model_copy(update={"segments": tuple(segments)})


@contextlib.contextmanager
def tool_server() -> Iterator[str]:
    """The URL of a server of slow tools in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready"
        script = Path(__file__).with_name("tool_server.py")
        process = subprocess.Popen([sys.executable, str(script), str(ready)], stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 120
            while not (ready.exists() and ready.read_text()):
                if time.monotonic() > deadline or process.poll() is not None:
                    raise SystemExit("the tool server did not start")
                time.sleep(0.05)
            yield ready.read_text()
        finally:
            process.terminate()
            process.wait()


def set_latency(url: str, seconds: float) -> None:
    """Sets how long the calls of the tool server take."""
    body = f'{{"seconds": {seconds}}}'.encode()
    request = urllib.request.Request(f"{url}/latency", body, {"Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=10).close()


async def with_own_tools(side: Side, url: str) -> dict[str, Any]:
    """A step with gog's tools at their default settings."""
    async with Toolbox({"grounding": url, "judge": url}, ToolsSpec()) as toolbox:
        return await side.run(toolbox)


def answer(side: Side, command: dict[str, Any], url: str) -> dict[str, Any]:
    """What a command asks for."""
    if command["do"] == "replay":
        return side.replay()
    seconds = float(command.get("latency", 0))
    if not command.get("http"):
        return asyncio.run(side.run(forced.LocalTools(seconds)))
    set_latency(url, seconds)
    return asyncio.run(with_own_tools(side, url))


def main(arguments: Sequence[str]) -> None:
    channel = measure.Channel()
    torch.set_num_threads(1)
    side = Side(Path(arguments[0]))
    with tool_server() as url:
        channel.send({"ready": True, "rss": measure.memory("VmRSS")})
        for command in channel.commands():
            channel.send(answer(side, command, url))


if __name__ == "__main__":
    main(sys.argv[1:])
