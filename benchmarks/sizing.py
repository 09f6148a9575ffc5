"""Writes the tables of docs/sizing.md with `gog estimate`, for published models on 1 to 16 GPUs of 80 and 141 GB.

    python benchmarks/sizing.py                        # what is missing, or was estimated by other code
    python benchmarks/sizing.py 'Qwen3-VL-8B x 8 '     # of those, what begins so

Each result is written when it is known, beside a hash of what it depends on (`basis`): its settings and the functions that
were called for it. So an interrupted run is continued, and a change of the recipes is noticed where it may change a figure.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import called_code

from gog import wording
from gog_console import sizing
from gog_operator.api import manifest

if TYPE_CHECKING:
    from gog_recipes.estimate.request import Estimate

ROOT = Path(__file__).parents[1]
PAGE, RESULTS = ROOT / "docs/sizing.md", ROOT / "benchmarks/results/sizing.json"
CALLED = RESULTS.with_name("sizing_code.json")
"""Functions that the recorded estimates called."""
MODELS = ("Qwen2.5-VL-3B", "Qwen2.5-VL-7B", "Qwen3-VL-8B", "Qwen3-VL-30B-A3B", "Qwen3-VL-32B")
GPUS = (1, 2, 4, 8, 16)
MEMORY = (80, 141)
VARIANTS = {"": ("", GPUS), "nf4": ("baseQuantization: nf4", (1, 8)), "offload": ("offload: cpu", (1, 2, 8))}
"""Tables by name: the setting of both stages that each is for, and its columns. A quantized base is whole on every GPU, so
more GPUs change little."""
GOAL = (("Qwen2.5-VL-7B", 8, 80), ("Qwen3-VL-8B", 8, 80))
"""Must fit."""
LIBRARIES = ("torch", "transformers", "peft")
"""Their versions decide what it traces, too."""
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
    sft: {{demonstrations: /data/demonstrations.zip, maxTokens: 16384, {setting}}}
    grpo: {{maxTokens: 16384, questionsPerStep: 32, groupSize: 5, concurrentEpisodes: 160, {setting}}}
"""


def key(model: str, gpus: int, memory: int, variant: str = "") -> str:
    """Name of a result: `Qwen3-VL-8B x 8 x 80`, or `Qwen3-VL-8B x 8 x 80 nf4`."""
    return f"{model} x {gpus} x {memory} {variant}".rstrip()


def ask(model: str, gpus: int, variant: str) -> dict[str, Any]:
    """What `gog estimate` would ask of the recipes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.yaml")
        path.write_text(MANIFEST.format(model=model, setting=VARIANTS[variant][0]))
        plan = sizing.plan(manifest.load(path), gpus=gpus, default_gpus=gpus, gpu_bytes=1)
    return sizing.request(plan)


def estimates(model: str, asked: Mapping[str, Any]) -> list[Estimate]:
    """What `gog estimate` reports for each size of memory; the stages are traced once."""
    from gog_recipes.estimate import published, report  # with torch, which the table alone does without
    from gog_recipes.estimate.request import Request

    sizes = [memory * 10**9 for memory in MEMORY]
    return report.estimates(Request.model_validate(asked), model, published.CONFIGS[model], sizes)


def row(found: Estimate) -> dict[str, Any]:
    """The largest phase of each stage."""
    largest = {}
    for stage in found.stages:
        phase = max(stage.phases, key=lambda each: each.total)
        largest[stage.key] = {"phase": phase.name, "bytes": phase.total}
    return {"fits": found.fits, "verdict": found.verdict, "stages": largest}


# ---------------------------------------------------------------- what a result depends on


def code(called: Mapping[str, Sequence[str]]) -> list[str]:
    """The code of the functions that estimates call, and the versions of its libraries."""
    return [*called_code.text(called), *map(metadata.version, LIBRARIES)]


def basis(asked: Mapping[str, Any], code: Sequence[str]) -> str:
    """Hash of a request, with all settings, and of the code that answers it."""
    content = json.dumps([asked, list(code)], sort_keys=True, default=str)
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


# ---------------------------------------------------------------- the page


def page(text: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """A page with the tables between its marks replaced; rows: by `key`."""
    for variant in VARIANTS:
        mark = f"sizing {variant}".rstrip()
        pattern = rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)"
        text = re.sub(pattern, rf"\g<1>{table(rows, variant)}\n\g<2>", text, flags=re.DOTALL)
    return text


def table(rows: Mapping[str, Mapping[str, Any]], variant: str = "") -> str:
    """A table as Markdown; rows: by `key`."""
    _, columns = VARIANTS[variant]
    head = "| model | memory | " + " | ".join(wording.plural(gpus, "GPU") for gpus in columns) + " |"
    lines = [head, "|" + "---|" * (2 + len(columns))]
    for model in MODELS:
        for memory in MEMORY:
            cells = [cell(rows.get(key(model, gpus, memory, variant)), memory) for gpus in columns]
            lines.append(f"| {model} | {memory} GB | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(found: Mapping[str, Any] | None, memory: int) -> str:
    """`sft 31 (update) · grpo 62 (prefill)`, bold where it does not fit; empty where it was not estimated."""
    if found is None:
        return ""
    parts = []
    for stage, largest in found["stages"].items():
        text = f"{stage} {largest['bytes'] / 1e9:.0f} ({largest['phase']})"
        parts.append(f"**{text}**" if largest["bytes"] > memory * 1e9 else text)
    return " · ".join(parts)


def headline(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Whether the goal is met."""
    met = all(rows.get(key(*each), {}).get("fits") for each in GOAL)
    return (
        f"7B and 8B on 8 x 80 GB, 16,384 tokens, N = 5, 32 questions: {'fits: met' if met else 'does not fit: missed'}"
    )


# ---------------------------------------------------------------- the program


def cases(wanted: Sequence[str]) -> Iterator[tuple[str, int, str]]:
    """Model, GPUs and variant of the cases whose name begins as one of `wanted`; all without one."""
    for variant, (_, columns) in VARIANTS.items():
        for model in MODELS:
            for gpus in columns:
                if not wanted or any(f"{model} x {gpus} {variant}".startswith(each) for each in wanted):
                    yield model, gpus, variant


def requests() -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Request and names of the results of every case."""
    for model, gpus, variant in cases(()):
        yield ask(model, gpus, variant), [key(model, gpus, memory, variant) for memory in MEMORY]


def stale(rows: Mapping[str, Mapping[str, Any]], called: Mapping[str, Sequence[str]]) -> list[str]:
    """Results of other code or settings."""
    current, found = code(called), []
    for asked, names in requests():
        expected = basis(asked, current)
        found += [name for name in names if name in rows and rows[name].get("basis") != expected]
    return found


def fill(rows: dict[str, dict[str, Any]], called: called_code.Functions, wanted: Sequence[str]) -> Iterator[str]:
    """Estimates what is missing in `rows` or was estimated by other code. Yields a line after each case.

    Args:
        rows: by `key`; grows
        called: functions that estimates call, of which more become known
        wanted: beginnings of names of cases; empty for all
    """
    current, recorded = code(called), set[tuple[str, bool, str]]()
    for model, gpus, variant in cases(wanted):
        asked, names = ask(model, gpus, variant), [key(model, gpus, memory, variant) for memory in MEMORY]
        if all(rows.get(name, {}).get("basis") == basis(asked, current) for name in names):
            continue
        started, kind = time.monotonic(), (model.rpartition("-")[0], gpus > 1, variant)
        with called_code.record() if kind not in recorded else contextlib.nullcontext({}) as found:
            sizes = estimates(model, asked)
        recorded.add(kind)  # those alike call the same functions, and a record makes an estimate slower
        current = _extended(rows, called, found)
        for name, each in zip(names, sizes, strict=True):
            rows[name] = row(each) | {"basis": basis(asked, current)}
        yield f"{names[0]}: {cell(rows[names[0]], MEMORY[0])} ({time.monotonic() - started:.0f} s)"


def _extended(
    rows: dict[str, dict[str, Any]], called: called_code.Functions, found: Mapping[str, Sequence[str]]
) -> list[str]:
    """The code of `called` and of the functions that are added to it here, on which results up to date depend as well."""
    before = code(called)
    called.update(called_code.joined(called, found))
    after = code(called)
    for asked, names in requests() if before != after else ():
        for name in names:
            if name in rows and rows[name].get("basis") == basis(asked, before):
                rows[name]["basis"] = basis(asked, after)
    return after


def main() -> None:
    """Estimates what the arguments name (default: all), writes the tables into the page, and prints whether the goal is met."""
    rows: dict[str, dict[str, Any]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    called: called_code.Functions = json.loads(CALLED.read_text()) if CALLED.exists() else {}
    for line in fill(rows, called, sys.argv[1:]):
        CALLED.write_text(json.dumps(called, indent=1) + "\n")
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
        PAGE.write_text(page(PAGE.read_text(), rows))
        print(line, flush=True)
    for variant, (setting, _) in VARIANTS.items():
        print("", setting or "default settings", table(rows, variant), sep="\n")
    if outdated := stale(rows, called):
        print(f"of other code or settings: {', '.join(outdated)}")
    print(headline(rows))


if __name__ == "__main__":
    main()
