"""Writes the table of docs/sizing.md with `gog estimate`, for published models on 1 to 16 GPUs of 80 and 141 GB.

python benchmarks/sizing.py                        # all: a quarter of an hour
python benchmarks/sizing.py 'Qwen3-VL-8B x 8 '     # those that begin so; the others stay as they are
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gog_console import sizing
from gog_operator.api import manifest

if TYPE_CHECKING:
    from gog_recipes.estimate.request import Estimate

ROOT = Path(__file__).parents[1]
PAGE, RESULTS = ROOT / "docs/sizing.md", ROOT / "benchmarks/results/sizing.json"
MODELS = ("Qwen2.5-VL-3B", "Qwen2.5-VL-7B", "Qwen3-VL-8B", "Qwen3-VL-30B-A3B", "Qwen3-VL-32B")
GPUS = (1, 2, 4, 8, 16)
MEMORY = (80, 141)
GOAL = (("Qwen2.5-VL-7B", 8, 80), ("Qwen3-VL-8B", 8, 80))
"""Must fit."""
MANIFEST = """\
apiVersion: gog.dev/v1alpha1
kind: GoGRun
metadata: {{name: sizing}}
spec:
  model: {{base: /models/{model}-Instruct, dtype: bfloat16}}
  data: {{path: /data/pool}}
  store: {{uri: "s3://bucket/run"}}
  endpoints:
    grounding: {{url: "http://127.0.0.1:8001"}}
    imageSearch: {{url: "http://127.0.0.1:8002"}}
    textSearch: {{url: "http://127.0.0.1:8003"}}
    judge: {{url: "http://127.0.0.1:8004"}}
  stages:
    skip: [curate, stratify, evaluate]
    sft: {{demonstrations: /data/demonstrations.zip, maxTokens: 16384}}
    grpo: {{maxTokens: 16384, questionsPerStep: 32, groupSize: 5, concurrentEpisodes: 160}}
"""


def estimates(model: str, gpus: int) -> list[Estimate]:
    """What `gog estimate` reports for each size of memory; the stages are traced once."""
    from gog_recipes.estimate import published, report  # with torch, which the table alone does without
    from gog_recipes.estimate.request import Request

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.yaml")
        path.write_text(MANIFEST.format(model=model))
        plan = sizing.plan(manifest.load(path), gpus=gpus, default_gpus=gpus, gpu_bytes=0)
    asked = Request.model_validate(sizing.request(plan) | {"gpu_bytes": 1})
    sizes = [memory * 10**9 for memory in MEMORY]
    return report.estimates(asked, model, published.CONFIGS[model], sizes)


def row(found: Estimate) -> dict[str, Any]:
    """The largest phase of each stage."""
    largest = {}
    for stage in found.stages:
        phase = max(stage.phases, key=lambda each: each.total)
        largest[stage.key] = {"phase": phase.name, "bytes": phase.total}
    return {"fits": found.fits, "verdict": found.verdict, "stages": largest}


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The table as Markdown; rows: by `model x gpus x memory`."""
    head = "| model | memory | " + " | ".join(f"{gpus} GPU{'s' * (gpus > 1)}" for gpus in GPUS) + " |"
    lines = [head, "|" + "---|" * (2 + len(GPUS))]
    for model in MODELS:
        for memory in MEMORY:
            cells = [cell(rows.get(f"{model} x {gpus} x {memory}"), memory) for gpus in GPUS]
            lines.append(f"| {model} | {memory} GB | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(found: dict[str, Any] | None, memory: int) -> str:
    """`sft 31 (update) · grpo 62 (prefill)`, bold where it does not fit; empty where it was not estimated."""
    if found is None:
        return ""
    parts = []
    for key, largest in found["stages"].items():
        text = f"{key} {largest['bytes'] / 1e9:.0f} ({largest['phase']})"
        parts.append(f"**{text}**" if largest["bytes"] > memory * 1e9 else text)
    return " · ".join(parts)


def main() -> None:
    """Estimates what the arguments name (default: all), prints the table, and writes it into the page."""
    rows: dict[str, dict[str, Any]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for model in MODELS:
        for gpus in GPUS:
            if not sys.argv[1:] or any(f"{model} x {gpus} ".startswith(wanted) for wanted in sys.argv[1:]):
                for memory, found in zip(MEMORY, estimates(model, gpus), strict=True):
                    rows[f"{model} x {gpus} x {memory}"] = row(found)
                RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    made = table(rows)
    page = re.sub(
        r"(<!-- sizing -->\n).*?(<!-- /sizing -->)", rf"\g<1>{made}\n\g<2>", PAGE.read_text(), flags=re.DOTALL
    )
    PAGE.write_text(page)
    print(made)
    met = all(rows.get(f"{model} x {gpus} x {memory}", {}).get("fits") for model, gpus, memory in GOAL)
    print(
        f"7B and 8B on 8 x 80 GB, 16,384 tokens, N = 5, 32 questions: {'fits: met' if met else 'does not fit: missed'}"
    )


if __name__ == "__main__":
    main()
