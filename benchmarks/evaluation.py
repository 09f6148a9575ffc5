"""How many questions an evaluation gets through when the policy takes no time. Against the goal.

    python benchmarks/evaluation.py [--questions 2000] [--repetitions 3]

Runs the recipe evaluate over the embedded world with an engine that writes its turns at once: `answer` answers, `search`
searches the whole image first. Tools and judge are the world's servers, in processes of their own. Counted is the time
from the first question to the last verdict; what the stage then computes and commits is timed apart. Each repetition is a
stage of its own, so nothing is resumed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import outcome
import yaml
from experiment_stages import CONFIGS, Servers

from gog import dataset, stats
from gog.spec import EvaluateConfig, WorldSpec
from gog_recipes.evaluate import EvaluateRecipe
from gog_recipes.runtime import config
from gog_recipes.world import generate

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support import scripted_engine
from support.builders import GLANCE, answer

GOAL = 50.0
"""Questions a second."""
TURNS = {"answer": (answer("Ada"),), "search": (GLANCE, answer("Ada"))}
"""What each policy without a model writes."""
TOOLS = '{"grounding": %s, "imageSearch": %s, "textSearch": %s, "judge": %s}' % (
    ('{"failures": {}, "options": {}}',) * 4
)


def answering(parts: Any) -> scripted_engine.ScriptedEngine:
    """The engine of `answer`."""
    return _engine(parts, "answer")


def searching(parts: Any) -> scripted_engine.ScriptedEngine:
    """The engine of `search`."""
    return _engine(parts, "search")


def _engine(parts: Any, name: str) -> scripted_engine.ScriptedEngine:
    made = scripted_engine.build(parts)
    made.script = lambda prompt, seed: TURNS[name]
    return made


FACTORIES = {"answer": "evaluation:answering", "search": "evaluation:searching"}


def play(root: Path, data: Path, tools: Mapping[str, str], name: str, repetition: int) -> tuple[float, float]:
    """Evaluates one policy. Returns seconds of the questions, and of what follows."""
    values = yaml.safe_load((CONFIGS / "evaluate.yaml").read_text()) | {
        "stage": f"{name}-{repetition}",
        "data": {"path": str(data)},
        "store": {"uri": f"file://{root / 'store'}"},
        "workdir": str(root / "work" / f"{name}-{repetition}"),
        "endpoints": dict(tools),
        "engine": FACTORIES[name],
        "policies": ["prompted"],  # the one that needs no checkpoint
        "keep_trajectories": 0,
    }
    recipe = EvaluateRecipe(config.typed(EvaluateConfig, values))
    recipe.setup()
    started = time.perf_counter()
    played = asyncio.run(recipe.train())
    ended = time.perf_counter()
    recipe.save_checkpoint(played)
    return ended - started, time.perf_counter() - ended


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=2000)
    parser.add_argument("--repetitions", type=int, default=3)
    given = parser.parse_args()
    found: dict[str, Any] = {"questions": given.questions}
    servers = Servers()
    with tempfile.TemporaryDirectory() as scratch:
        root, world = Path(scratch), WorldSpec(train=1, test=given.questions)
        generate.write(root / "data", world)
        asked = len(list(dataset.read_lines(root / "data" / "test.jsonl", dataset.Question)))
        try:
            tools = servers.of(TOOLS, root / "data", root)
            times = {
                name: [play(root, root / "data", tools, name, n) for n in range(given.repetitions)] for name in TURNS
            }
        finally:
            servers.close()
    for name, pairs in times.items():
        rates = sorted(asked / play for play, _ in pairs)
        rest = stats.percentile([after for _, after in pairs], 0.5)
        found[name] = {"questions_per_second": [round(each, 1) for each in rates], "then_seconds": round(rest, 2)}
        print(f"{name}: {rates[0]:.0f} to {rates[-1]:.0f} questions/s; then {rest:.1f} s to compare and commit")
    slowest = min(found[name]["questions_per_second"][0] for name in TURNS)
    return outcome.finish("evaluation", found, {f">= {GOAL:.0f} questions/s": slowest >= GOAL})


if __name__ == "__main__":
    sys.exit(main())
