"""A run -> what a check of its tools calls, and with which keys."""

from __future__ import annotations

from collections.abc import Mapping

from gog import spec as settings
from gog.tool_check.config import COMPARED, CheckConfig
from gog_operator.api import sequence
from gog_operator.api.objects import GoGRun
from gog_operator.build import children


def roles(run: GoGRun) -> tuple[str, ...]:
    """The tools that the run calls. Grounding is not one of them where no stage gazes."""
    steps = [each for each in sequence.steps(run) if settings.NEEDS_TOOLS[each.stage]]
    gazes = any(getattr(each.settings.stages, each.stage).gaze != "off" for each in steps)
    return tuple(each.name for each in children.tools(run) if steps and (gazes or each.name != "grounding"))


def is_needed(run: GoGRun) -> bool:
    """Whether the run calls any tool. One that replays a recording does not."""
    return bool(roles(run)) and not run.spec.tools.cache.is_replay


def config(run: GoGRun, urls: Mapping[str, str], *, on_cluster: bool) -> CheckConfig:
    """What is called.

    Args:
        run: The run.
        urls: Base URL of each tool, by role; those that are missing are not called.
        on_cluster: Whether keys come from Secrets.
    """
    given = {tool.name: getattr(run.spec.endpoints, tool.field) for tool in children.tools(run)}
    evaluate = run.spec.stages.evaluate
    return CheckConfig(
        endpoints={role: urls[role] for role in roles(run) if urls.get(role)},
        judge_model=given["judge"].model,
        tools=run.spec.tools,
        endpoint=None if "evaluate" in run.spec.stages.skip else evaluate.endpoint,
        backends={role: each.backend for role, each in given.items() if each.url is None},
        secrets=secrets(run),
        on_cluster=on_cluster,
    )


def secrets(run: GoGRun) -> dict[str, str]:
    """Secret with the key of each server that requires one, by its name in a check."""
    compared = None if "evaluate" in run.spec.stages.skip else run.spec.stages.evaluate.endpoint
    own = {COMPARED: compared.secret_name} if compared is not None and compared.secret_name is not None else {}
    return children.keys(run) | own
