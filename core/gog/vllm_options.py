"""The command line of a vLLM that a run starts: options that a run needs, and defaults that a manifest may change.

One list for a process of this machine (gog_tools.policy.vllm_server) and for a pod (gog_operator.build.vllm).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gog.errors import UserError

ENVIRONMENT = {
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",  # adapters of every version are loaded while it runs
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
}
"""Environment of the process."""
REQUIRED: dict[str, Any] = {
    "enable-scale-out": True,  # token ids in, token ids out
    "logprobs-mode": "processed_logprobs",  # of the distribution that is sampled from
    "enable-lora": True,
}
"""Options of a policy's server, without which a run cannot use it."""
DEFAULTS: dict[str, Any] = {
    "served-model-name": "base",
    "max-lora-rank": 64,
    "max-loras": 2,  # a turn in flight ends on the version that it began with
    "enable-prompt-tokens-details": True,  # what the prefix cache saves becomes a figure of the step
}
"""Options of a policy's server that `options` may change."""
MAX_RANK = DEFAULTS["max-lora-rank"]
"""Rank of adapters up to which a server takes them by default."""


def arguments(folder: str, host: str, port: int, options: Mapping[str, Any], *, role: str = "policy") -> list[str]:
    """The arguments of vLLM.

    Args:
        folder: of the base model.
        host: address to listen on.
        port: port to listen on.
        options: options of vLLM by name, without dashes: True is a bare flag, False leaves an option out, a mapping or
            list is written as JSON.
        role: policy, which takes adapters, or judge, which is an ordinary model.

    Raises:
        UserError: an option contradicts what a run needs.
    """
    required, defaults = (REQUIRED, DEFAULTS) if role == "policy" else ({}, {"served-model-name": role})
    for name, value in required.items():
        if options.get(name, value) != value:
            raise UserError(f"must be {value!r}", where=f"endpoints.{role}.options.{name}", remedy="leave it out")
    line = ["serve", folder, "--host", host, "--port", str(port)]
    for name, value in {**defaults, **options, **required}.items():
        if value is not False and value is not None:
            line += [f"--{name}"] if value is True else [f"--{name}", _text(value)]
    return line


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict | list) else str(value)
