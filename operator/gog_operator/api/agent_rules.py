"""Rules of what serves a result: the agent of a run, and the ToolServer of an agent (gog_operator.api.rules)."""

from __future__ import annotations

from gog.spec import runs
from gog_operator.api.rule import FORBIDDEN, Rule, has

RUN = (
    Rule(
        "!has(self.serve) || !has(self.endpoints) || !has(self.endpoints.policy) || !has(self.endpoints.policy.url)",
        runs.SERVED_BY_URL,
        ".serve",
        FORBIDDEN,
    ),
    Rule(
        "!has(self.serve) || !has(self.stages) || !has(self.stages.skip) || !('evaluate' in self.stages.skip)",
        runs.SERVED_UNSEEN,
        ".serve",
        FORBIDDEN,
    ),
)
SERVER = (
    Rule(
        "self.role == 'policy' || self.role == 'agent' || !has(self.version) || self.version == ''",
        "only the roles policy and agent serve a checkpoint: remove version",
        ".version",
        FORBIDDEN,
        check=lambda server: server.role in ("policy", "agent") or server.version == "",
    ),
    Rule(
        "(self.role == 'agent') == has(self.agent)",
        "agent is what a server of role agent answers with: give both, or neither",
        ".agent",
        check=lambda server: (server.role == "agent") == has(server, "agent"),
    ),
)
