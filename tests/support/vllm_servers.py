"""Real vLLM servers on this machine's CPU, and a policy that samples from them, for tests and benchmarks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gog import prompts
from gog.engine import Limits
from gog.images import Image
from gog.spec import (
    DataSpec,
    EngineSettings,
    GRPOConfig,
    LoraSettings,
    ModelSpec,
    OutageSpec,
    PolicyServerSpec,
    StoreSpec,
    ToolsSpec,
    WorldSpec,
)
from gog.trajectory import Segment
from gog_recipes.models import lora, policy_model
from gog_recipes.rollout.engine import Parts
from gog_recipes.rollout.vllm import VLLMEngine
from gog_recipes.runtime.stage import Stage
from support import ports

SCRIPTS = Path(__file__).parent.parent / "vllm"
ENVIRONMENT = Path(os.environ.get("GOG_VLLM", Path.home() / ".cache" / "gog-vllm"))
START_SECONDS = 7200.0
"""For a server on a machine that is busy with other work: with a fifteenth of a core, two were not ready after half an hour."""
CPU = torch.device("cpu")


OPTIONS = (
    "--served-model-name", "base", "--dtype", "float32", "--enforce-eager", "--enable-scale-out",
    "--logprobs-mode", "processed_logprobs", "--enable-lora", "--max-lora-rank", "16",
    "--limit-mm-per-prompt", '{"image": 16, "video": 0}',
)  # fmt: skip


@dataclass
class Server:
    """A vLLM server, which keeps its port when it is started again."""

    model: Path
    """The base model."""
    log: Path
    """Its log."""
    options: tuple[str, ...] = ()
    """Further options."""
    port: int = field(default_factory=lambda: ports.free(1)[0])
    """Where it listens."""
    process: subprocess.Popen[bytes] | None = None
    """While it runs."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts it, unless it runs."""
        if self.process is not None and self.process.poll() is None:
            return
        line = [SCRIPTS / "serve", "serve", self.model, "--host", "127.0.0.1", "--port", str(self.port), *self.options]
        with self.log.open("ab") as stream:
            self.process = subprocess.Popen(
                [str(each) for each in line],
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", "GOG_VLLM": str(ENVIRONMENT)},
            )

    def wait(self) -> None:
        """Waits until it is ready."""
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready():
            assert self.process is not None and self.process.poll() is None, self.log.read_text()[-2000:]
            assert time.monotonic() < deadline, f"not ready within {START_SECONDS:g} s"
            time.sleep(1)

    def _is_ready(self) -> bool:
        with contextlib.suppress(OSError, urllib.error.URLError):
            return urllib.request.urlopen(f"{self.url}/health", timeout=5).status == 200
        return False

    def kill(self) -> None:
        """kill -9 of all of its processes."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@dataclass
class Policy:
    """A base model with adapters, and engines that sample from it."""

    spec: ModelSpec
    """The base model."""
    folder: Path
    """For what the engines write."""
    saved: list[Path] = field(default_factory=list)
    """Adapters beneath the one that is trained."""
    waits: list[Any] = field(default_factory=list)
    """Outages that engines waited for."""
    engines: list[VLLMEngine] = field(default_factory=list)
    """Those that were made."""

    def __post_init__(self) -> None:
        self.processor = policy_model.load_processor(self.spec)
        base = policy_model.load_base(self.spec, CPU)
        self.saved.append(self._save(base, self.folder / "sft", seed=1))
        base = lora.with_saved(policy_model.load_base(self.spec, CPU), self.saved)
        self.model = lora.add(base, LoraSettings()).eval()
        self.vision = policy_model.vision_of(self.model, self.processor)

    def _save(self, base: Any, folder: Path, seed: int) -> Path:
        model = lora.add(base, LoraSettings())
        self.train(seed, model)
        model.save_pretrained(str(folder))
        return folder

    def train(self, seed: int, model: Any = None) -> None:
        """Gives the trained adapter weights that matter."""
        torch.manual_seed(seed)
        for name, parameter in (model or self.model).named_parameters():
            if parameter.requires_grad and "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.05)

    def engine(
        self,
        servers: Sequence[Server],
        limits: Limits,
        *,
        patience: float = 600.0,
        backoff: float = 0.5,
        deterministic: bool = False,
    ) -> VLLMEngine:
        stage = Stage(
            GRPOConfig(
                model=self.spec,
                data=DataSpec(world=WorldSpec()),
                store=StoreSpec(uri=(self.folder / "store").as_uri()),
                workdir=str(self.folder / "work"),
                endpoints={"policy": ",".join(server.url for server in servers)} if servers else {},
                tools=ToolsSpec(
                    outage=OutageSpec(patience_seconds=patience),
                    policy_server=PolicyServerSpec(backoff_seconds=backoff),
                ),
            )
        )
        stage.watch().report = self.waits.append
        parts = Parts(
            self.model,
            self.processor,
            self.vision,
            limits,
            8,
            saved=self.saved,
            stage=stage,
            settings=EngineSettings(deterministic=deterministic),
        )
        self.engines.append(VLLMEngine(parts))
        return self.engines[-1]

    def close(self) -> None:
        """Ends what a failed test left open."""
        for engine in self.engines:
            engine._open.clear()
            asyncio.run(engine.close())

    @torch.no_grad()
    def logprobs(self, segments: Sequence[Segment], temperature: float = 1.0) -> np.ndarray:
        """The trainer's log-probs of what a conversation sampled."""
        batch = policy_model.collate([segments], self.processor, self.vision, CPU)
        images, suppressed = policy_model.features(batch, self.vision), self.processor.suppress_tokens
        return policy_model.token_logprobs(
            self.model, batch, images, suppressed=suppressed, temperature=temperature
        ).numpy()


def image(seed: int, wide: int = 112, high: int = 112) -> Image:
    return Image(np.random.default_rng(seed).integers(0, 255, (high, wide, 3), dtype=np.uint8))


def sampled(segments: Sequence[Segment]) -> np.ndarray:
    """Log-probs as the engine recorded them."""
    return np.array([value for segment in segments if segment.source == "model" for value in segment.logprobs])


async def converse(session: Any, turns: int, number: int, before: Callable[[int], Any] | None = None) -> Any:
    """Plays turns, whatever the model writes, with two images of different sizes in each observation."""
    for turn in range(turns):
        if before is not None:
            await before(turn)
        await session.generate()
        if turn + 1 < turns:
            shown = [image(10 * number + turn, 28, 28), image(10 * number + turn + 5, 60 + 7 * turn, 47)]
            session.observe(await session.encode(f"1 {prompts.IMAGE} 2 {prompts.IMAGE}", shown))
    session.close()
    return session.segments()


async def play(engine: VLLMEngine, count: int = 3, turns: int = 3, before: Any = None) -> list[Sequence[Segment]]:
    """Segments of a group of conversations, played at the same time."""
    text = prompts.prompt("What is this?", style=engine.style)
    sessions = await engine.open(text, [image(1, 112, 90)], [(7, 1, 3, sample) for sample in range(count)])
    return await asyncio.gather(*(converse(each, turns, number, before) for number, each in enumerate(sessions)))
