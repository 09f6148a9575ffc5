"""A ToolServer -> the command line of its server, the same in a pod and on one machine."""

from __future__ import annotations

import json

from gog import catalog, hub
from gog import spec as settings
from gog_operator.api.objects import ToolServer

READERS = tuple(server.name for server in catalog.SERVERS if server.reads_data)
"""Roles that answer from a dataset; the others use only the content of the request."""


def arguments(
    tool_server: ToolServer, *, host: str, port: int, ready_file: str = "", data: settings.DataSpec | None = None
) -> list[str]:
    """The arguments of `gog serve`.

    Args:
        tool_server: The ToolServer.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        ready_file: File that the server writes when it is ready; empty for none.
        data: Where the dataset is; None where there is none.
    """
    spec = tool_server.spec
    line = [catalog.SERVER_BY_NAME[spec.role].command]
    if spec.runtime == "vllm":
        line = ["policy", "--runtime", "vllm", *([] if spec.role == "policy" else ["--role", spec.role])]
    line += ["--host", host, "--port", str(port)]
    if ready_file:
        line += ["--ready-file", ready_file]
    dataset = (data.path or data.uri) if data is not None and spec.role in READERS else None
    if dataset:
        line += ["--data", dataset]
    if spec.backend != "world":
        line += ["--backend", spec.backend]
    named = {"served-model-name": spec.model} if spec.runtime == "vllm" and spec.role == "judge" and spec.model else {}
    if options := named | spec.options:
        line += ["--options", json.dumps(options, sort_keys=True)]
    if spec.base:
        line += ["--model", spec.base]
    if spec.dtype is not None and spec.runtime == "gog":  # vLLM's is among its options
        line += ["--dtype", spec.dtype]
    for option, pixels in (("--min-pixels", spec.min_pixels), ("--max-pixels", spec.max_pixels)):
        if pixels is not None and spec.runtime == "gog":
            line += [option, str(pixels)]
    if reads_store(tool_server, data) and spec.store is not None:
        line += ["--store", spec.store.model_dump_json(by_alias=True, exclude_unset=True)]
    if spec.failures.rate > 0:
        line += ["--failures", json.dumps(spec.failures.model_dump(mode="json"))]
    return line


def reads_store(tool_server: ToolServer, data: settings.DataSpec | None) -> bool:
    """Whether the server reads from a store: adapters, a dataset that is in one, or what an option names there."""
    if tool_server.spec.role == "policy":
        return True
    if any(isinstance(each, str) and each.startswith("s3://") for each in tool_server.spec.options.values()):
        return True
    in_store = data is not None and data.uri is not None and not data.uri.startswith(hub.PREFIX)
    return tool_server.spec.role in READERS and in_store
