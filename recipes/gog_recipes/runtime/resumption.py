"""Which checkpoint a stage may resume from: one that its own run made with settings of the same effect. Pure.

A setting that decides what a stage computes must be that of the checkpoint. Others may change between attempts: how far the
stage goes, its memory, and how its tools are called. Their names are listed here and nowhere else.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from gog import catalog, store
from gog.errors import UserError
from gog.spec import CallPolicy

MEMORY_MAY_CHANGE = {
    "feature_cache_bytes",
    "micro_batch_tokens",
    "activation_checkpointing",
    "offload",
    "kv_cache_bytes",
    "prefill_tokens",
    "concurrent_episodes",
}
"""Settings that bound memory, which a user lowers after a stage ran out of it. They change no more than the last bits."""
MAY_CHANGE = {
    "steps",
    "max_steps",
    "max_excluded_share",
    "max_unknown_share",
    "max_no_signal_steps",
    "no_signal",
    "save_every",
    "keep_trajectories",
    "profile",
    "asynchronous",
    *MEMORY_MAY_CHANGE,
}
"""Settings that may differ from those of the checkpoint that a stage resumes from: how far it goes, how much of an
outage and how many steps without a signal it tolerates, what it keeps and traces, how far rollouts run ahead, and its use of memory."""
WITHIN_MAY_CHANGE = {
    "tools": {
        *CallPolicy.model_fields,
        "judge",
        "budget",
        "policy_server",
        "outage",
        *(tool.field for tool in catalog.TOOLS),
    },
    "model": {"secret_name"},
    "endpoint": {"secret_name", "usd_per_million_prompt_tokens", "usd_per_million_completion_tokens"},
}
"""Settings within others that may differ likewise: how calls are made, not what they return."""


def decisive(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide what a stage computes."""
    return {name: _decisive(name, value) for name, value in settings.items() if name not in MAY_CHANGE}


def _decisive(name: str, value: Any) -> Any:
    """A setting without what may change between attempts."""
    without = WITHIN_MAY_CHANGE.get(name, set())
    return {key: each for key, each in value.items() if key not in without} if isinstance(value, dict) else value


def require_same(checkpoint: store.Manifest, settings: Mapping[str, Any], uri: str) -> None:
    """Checks that a stage may resume from a checkpoint. Settings that the checkpoint does not record are not compared.

    Args:
        checkpoint: the newest under the stage's key.
        settings: those in force.
        uri: of the store, for the message.

    Raises:
        UserError: another run made the checkpoint, or other settings did.
    """
    there = checkpoint.meta.get("settings", {})
    differing = [
        name for name, own in decisive(settings).items() if name in there and _decisive(name, there[name]) != own
    ]
    if differing:
        raise _refusal(checkpoint.ref, there, settings, differing, uri)


def require_parents(checkpoint: store.Manifest, parents: Sequence[store.Manifest], uri: str) -> None:
    """Checks that a checkpoint was made from the checkpoints that the stage starts from now.

    Its adapter continues those weights: beneath others it would be another policy than the one that was trained.

    Args:
        checkpoint: from which the stage resumes.
        parents: checkpoints of earlier stages that the stage starts from.
        uri: of the store, for the message.

    Raises:
        UserError: with both.
    """
    there, here = sorted(checkpoint.parents), sorted(each.ref for each in parents)
    if there != here:
        raise UserError(
            f"checkpoint {checkpoint.ref} started from {_listed(there)}, the stage would start from {_listed(here)}",
            where=uri,
            remedy="name what it started from under inputs, or start a new run, with another name or store",
        )


def require_chain(chain: Sequence[store.Manifest], uri: str) -> None:
    """Checks that adapters which are applied together were trained on each other.

    Args:
        chain: checkpoints whose adapters are applied, in the order in which they were trained.
        uri: of the store, for the message.

    Raises:
        UserError: with the checkpoint that started from another one.
    """
    for beneath, above in itertools.pairwise(chain):
        if beneath.ref not in above.parents:
            raise UserError(
                f"checkpoint {above.ref} started from {_listed(above.parents)}, the stage would apply it on {beneath.ref}",
                where=uri,
                remedy="name what it started from under inputs",
            )


def _listed(refs: Sequence[str]) -> str:
    return " and ".join(refs) or "no checkpoint"


def _refusal(ref: str, there: Mapping[str, Any], here: Mapping[str, Any], differing: list[str], uri: str) -> UserError:
    """The refusal of a checkpoint whose settings, of which `differing` differ, are not the stage's."""
    if "run" in differing:
        remedy = "name another store: two runs must not share one"
        return UserError(f"checkpoint {ref} was made by run {there['run']!r}", where=uri, remedy=remedy)
    shown = [_difference(name, there[name], here[name]) for name in differing]
    return UserError(
        f"checkpoint {ref} was made with other settings: {', '.join(shown)}",
        where=uri,
        remedy="restore those to resume the stage, or start a new run, with another name or store, for the new ones",
    )


def _difference(name: str, there: Any, here: Any) -> str:
    """A setting with both values, where they are short."""
    if any(isinstance(value, dict) for value in (there, here)):
        return name
    return f"{name} ({there} there, {here} here)"
