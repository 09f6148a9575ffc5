"""An agent: the ToolServer that answers chats, the servers that it owns, and the document of its routes.

An agent outlives the runs that offer it versions, so it has servers of its own: those that a run of its settings would
start, but for the judge. It is named in the run's manifest, and owned by no run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gog import catalog, offers
from gog import spec as settings
from gog.errors import UserError
from gog_operator.api import names
from gog_operator.api.meta import API_VERSION, RUN_LABEL
from gog_operator.api.objects import GoGRun, ToolServer
from gog_operator.build import children

POLICY = "policy"


def name_of(run: GoGRun) -> str:
    """Name of the agent that a run serves its policy by; empty where it serves none."""
    if run.spec.serve is None:
        return ""
    return run.spec.serve.agent.name or names.bounded(f"{run.name}-agent", names.SERVICE_LIMIT - len("-image-search"))


def agent(
    run: GoGRun, store: settings.StoreSpec, data: settings.DataSpec | None, published: offers.Published
) -> ToolServer:
    """The agent that a run starts, with the caps of its evaluation.

    Args:
        run: the run.
        store: of the agent's versions.
        data: where the run's dataset is.
        published: the version that it is to serve.
    """
    serve = run.spec.serve
    assert serve is not None
    given, endpoints = serve.agent, run.spec.endpoints.as_given()
    endpoints.pop("judge", None)
    about = {
        "model": run.spec.model.as_given(),
        "endpoints": endpoints | ({} if POLICY in endpoints else {POLICY: {}}),
        "tools": published.tools,
        "settings": published.settings,
        "limits": given.limits.as_given(),
        "canary": serve.canary.as_given(),
        "keysSecretName": given.keys_secret_name,
        "trainerImage": run.spec.images.trainer,
        "toolsImage": run.spec.images.tools,
    }
    spec: dict[str, Any] = {
        "role": "agent",
        "version": published.version,
        "store": store.as_given(),
        "data": (data or run.spec.data).as_given(),
        "agent": {key: value for key, value in about.items() if value is not None},
        "replicas": given.replicas,
        "resources": given.resources.as_given(),
        "port": given.port,
        "pods": [each.as_given() for each in run.spec.pods],
        "serviceAccountName": run.spec.service_account_name,
        "image": run.spec.images.tools,
        "scheduling": run.spec.scheduling.as_given() if "scheduling" in run.spec.model_fields_set else None,
    }
    metadata: dict[str, Any] = {"name": name_of(run), "labels": {RUN_LABEL: run.name}}
    if run.metadata.namespace:
        metadata["namespace"] = run.metadata.namespace
    body = {key: value for key, value in spec.items() if value not in (None, [], {})}
    return ToolServer.model_validate(
        {"apiVersion": API_VERSION, "kind": "ToolServer", "metadata": metadata, "spec": body}
    )


def servers(agent: ToolServer, versions: str) -> tuple[ToolServer, ...]:
    """The servers that an agent owns: its tools and its policy.

    Args:
        agent: the agent.
        versions: checkpoints that its policy has loaded, the default first.
    """
    given, spec = agent.spec.agent, agent.spec
    assert given is not None
    if spec.store is None or spec.data is None:
        missing = "store" if spec.store is None else "data"
        raise UserError("missing: an agent's servers read from it", where=f"ToolServer {agent.name}: spec.{missing}")
    images = {"trainer": given.trainer_image, "tools": given.tools_image}
    like = {
        "model": given.model.as_given(),
        "data": spec.data.as_given(),
        "store": spec.store.as_given(),
        "endpoints": given.endpoints.as_given(),
        "pods": [each.as_given() for each in spec.pods],
        "serviceAccountName": spec.service_account_name,
        "images": {name: image for name, image in images.items() if image is not None},
    } | ({"scheduling": spec.scheduling.as_given()} if "scheduling" in spec.model_fields_set else {})
    body = {"apiVersion": API_VERSION, "kind": "GoGRun", "metadata": {"name": agent.name}, "spec": like}
    run = GoGRun.model_validate(body)
    run = run.model_copy(update={"metadata": agent.metadata})
    made = [each for each in children.tool_servers(run, spec.store) if each.spec.role != "judge"]
    return tuple(_owned(each, agent) for each in (*made, children.policy(run, spec.store, versions)))


def server_names(agent: ToolServer) -> dict[str, str]:
    """Names of the servers that an agent owns, by role."""
    return {each.spec.role: each.name for each in servers(agent, "")}


def _owned(server: ToolServer, agent: ToolServer) -> ToolServer:
    run = agent.metadata.labels.get(RUN_LABEL)
    update = {"owner_references": (agent.owner_reference(),), "labels": {RUN_LABEL: run} if run else {}}
    return server.model_copy(update={"metadata": server.metadata.model_copy(update=update)})


def routes(agent: ToolServer, urls: Mapping[str, str], served: str, canary: str) -> str:
    """The document that an agent follows.

    Args:
        agent: the agent.
        urls: URL of each of its servers, by role.
        served: checkpoint that is served.
        canary: checkpoint that is tried; empty for none.
    """
    given = agent.spec.agent
    assert given is not None
    document = {
        "policy": urls[POLICY],
        "tools": {tool.name: urls[tool.name] for tool in catalog.TOOLS if tool.callable and tool.name in urls},
        "served": offers.name_of(served),
        "canary": offers.name_of(canary),
        "share": given.canary.share if canary else 0.0,
    }
    return json.dumps(document, sort_keys=True)


def arguments(agent: ToolServer, routes_file: str, keys_file: str) -> list[str]:
    """Options of `gog serve agent` besides those of every server.

    Args:
        agent: the agent.
        routes_file: file with its routes.
        keys_file: file with the keys of its callers; empty for none.
    """
    given = agent.spec.agent
    assert given is not None
    limits = given.limits
    line = ["--routes", routes_file, "--name", agent.name, "--style", given.model.style]
    line += ["--settings", given.settings.model_dump_json(exclude_unset=True)]
    line += ["--limits", given.tools.model_dump_json(exclude_unset=True)]
    line += ["--rate-per-minute", f"{limits.rate_per_minute:g}", "--chats", str(limits.chats)]
    line += ["--waiting", str(limits.waiting), "--seconds", f"{limits.seconds:g}"]
    line += ["--turn-seconds", f"{limits.turn_seconds:g}", "--temperature", f"{limits.temperature:g}"]
    return [*line, *(["--keys", keys_file] if keys_file else [])]


def secrets(agent: ToolServer) -> dict[str, str]:
    """Secret with the API key of each of an agent's servers that requires one, by role."""
    given = agent.spec.agent
    assert given is not None
    named = {
        server.name: getattr(given.endpoints, server.field) for server in catalog.SERVERS if server.name != "judge"
    }
    return {role: each.secret_name for role, each in named.items() if each is not None and each.secret_name is not None}
