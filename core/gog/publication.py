"""Publishes a trained policy as a version of an agent, if its evaluation passes the gate.

A version is a checkpoint of the agent's own store, `<agent>/<number>`: the policy as one adapter on the plain base, and the
verdicts of its evaluation, so that it needs nothing of the run that made it, and the next version is compared with it on the
same questions. Its manifest names its source. A publication that is repeated finds the version that it has made; two
that race for a number get two numbers.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from gog import adapters, base_model, promotion, stats, store
from gog.errors import UserError
from gog.offers import Asked, Published
from gog.spec import AgentSettings, ToolsSpec

VERDICTS = "verdicts.json"
"""File of a version: accuracy by question."""
SOURCE = "source"
"""Key in a version's metadata: the run and the checkpoint that it was made from."""
NOT_OF_CHATS = ("judge", "cache", "outage", "budget")
"""Settings of tools that hold for stages only."""


def publish(own: store.Store, target: store.Store, asked: Asked) -> Published:
    """Publishes a version, unless the gate is closed.

    Args:
        own: the run's store.
        target: the agent's store, which may be the same.
        asked: what is to be published.

    Raises:
        UserError: a checkpoint is missing or corrupt, or cannot be served.
        store.Unavailable: a store does not answer.
    """
    evaluation = own.resolve(asked.evaluation)
    new = _verdicts_of(own, evaluation, asked.policy)
    lineage = adapters.lineage(own, asked.checkpoint)
    trained_on = lineage[-1].meta.get(base_model.RECORD)
    settings, tools = _played(evaluation.meta.get("settings") or {})
    source = {"run": asked.run, "checkpoint": asked.checkpoint}
    steps = target.steps(asked.agent)
    made = next((each for step in reversed(steps) if _is_of(each := target.manifest(asked.agent, step), source)), None)
    if made is not None:
        return Published(made.ref, str(made.meta.get("gate", "")), settings, tools)
    name = f"{asked.checkpoint} of {asked.run.partition(' ')[0]}"
    decided = promotion.gate(
        name, new, asked.gate, asked.served, _served(target, asked.served, evaluation.meta.get("dataset"), trained_on)
    )
    if not decided.is_open:
        return Published("", decided.sentence)
    meta = {
        SOURCE: source, "gate": decided.sentence, "dataset": evaluation.meta.get("dataset"),
        base_model.RECORD: trained_on, "complete": True,
    }  # fmt: skip
    version = _commit(own, target, asked, new, meta)
    return Published(version, decided.sentence, settings, tools)


def _served(target: store.Store, served: str, dataset: object, trained_on: object) -> promotion.Verdicts | None:
    """Verdicts of the version that is served, where its evaluation had the same dataset.

    Raises:
        UserError: it was trained on another base model, beside which the new version cannot be served.
    """
    if not served:
        return None
    there = target.resolve(served)
    if there.meta.get(base_model.RECORD) != trained_on:
        raise UserError(
            f"{served} was trained on another base model than the new version",
            where="serve.agent.name",
            remedy="serve it under another name",
        )
    if VERDICTS not in there.files or there.meta.get("dataset") != dataset:
        return None
    found: dict[str, float] = json.loads(target.open(there, VERDICTS).read_bytes())
    return found


def _commit(
    own: store.Store, target: store.Store, asked: Asked, verdicts: promotion.Verdicts, meta: dict[str, Any]
) -> str:
    """Commits the version under the next free number."""
    with tempfile.TemporaryDirectory(prefix="gog-version-") as scratch:
        folder = adapters.fetch_servable(own, asked.checkpoint, Path(scratch) / "adapter")
        (folder / VERDICTS).write_text(json.dumps(dict(verdicts)), encoding="utf-8")
        blobs = target.stage_blobs({path.name: path for path in sorted(folder.iterdir())})
        number = max(target.steps(asked.agent), default=0) + 1
        while True:
            try:
                return target.commit(asked.agent, number, blobs, meta=meta).ref
            except UserError:  # another publication has taken the number
                if number not in target.steps(asked.agent):
                    raise
                number += 1


def _is_of(version: store.Manifest, source: dict[str, str]) -> bool:
    return version.meta.get(SOURCE) == source


def _verdicts_of(own: store.Store, evaluation: store.Manifest, policy: str) -> dict[str, float]:
    """Mean verdict by question of one policy of an evaluation, of the answers with a verdict."""
    found: dict[str, list[float]] = {}
    with own.open(evaluation, "answers.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            answer = json.loads(line)
            if answer["policy"] == policy and answer["accuracy"] is not None:
                question = f"{answer['benchmark']}/{answer['question_id']}"
                found.setdefault(question, []).append(float(answer["accuracy"]))
    return {question: stats.mean(own) for question, own in found.items()}


def _played(settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Caps, and how tools were called, of an evaluation, as manifests write them."""
    own = {name: settings[name] for name in AgentSettings.model_fields if name in settings}
    caps, tools = AgentSettings.model_validate(own), ToolsSpec.model_validate(settings.get("tools") or {})
    excluded = set(NOT_OF_CHATS)
    return (
        caps.model_dump(mode="json", by_alias=True, exclude_defaults=True),
        tools.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=excluded),
    )
