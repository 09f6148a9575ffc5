"""Rules of the stage evaluate (gog_operator.api.rules)."""

from __future__ import annotations

from gog import benchmarks
from gog_operator.api.rule import REQUIRED, Rule

_COMPARED = Rule(
    "!has(self.policies) || has(self.endpoint) || !self.policies.exists(each, each.startsWith('endpoint'))",
    "policies endpoint and endpoint-direct need endpoint: {url: …, model: …}",
    ".endpoint",
    REQUIRED,
)
_SAMPLES = Rule(
    "!has(self.samples) || self.samples <= 1 || (has(self.temperature) && self.temperature > 0.0)",
    "samples above 1 need a temperature above 0: at 0 all answers to a question are the same",
    ".temperature",
)
_CALLED = "(has({0}.name) && {0}.name != '' ? {0}.name : {0}.split)"
_BENCHMARKS = Rule(
    "!has(self.benchmarks) || self.benchmarks.all(one, self.benchmarks.exists_one(each, "
    f"{_CALLED.format('each')} == {_CALLED.format('one')}))",
    "two benchmarks have one name: give each a name of its own",
    ".benchmarks",
)


def _is_named(given: str, public: str) -> str:
    """CEL of gog.benchmarks.named: whether a name is that of a public benchmark. given: CEL of the name."""
    letters = "[^a-z0-9]*".join(public.lower())
    return f"{given}.matches('(?i)^[^a-z0-9]*{letters}[^a-z0-9]*(t[^a-z0-9]*e[^a-z0-9]*s[^a-z0-9]*t[^a-z0-9]*)?$')"


def _whole(given: str, size: str) -> str:
    """CEL: whether `questions` takes all of a benchmark, or it is no public one. given, size: CEL of its name and `size`."""
    return " && ".join(
        f"(!{_is_named(given, public)} || {size.format(number)} <= self.questions)"
        for public, number in benchmarks.SIZES.items()
    )


_PART = Rule(
    "!has(self.questions) || (has(self.benchmarks) && self.benchmarks.size() > 0 ? self.benchmarks.all(each, "
    f"{_whole(_CALLED.format('each'), '(has(each.size) ? each.size : {})')}) : !has(self.split) || "
    f"({_whole('self.split', '{}')}))",
    benchmarks.CUT,
    ".questions",
    check=lambda stage: (
        not any(benchmarks.is_cut(each.called, each.expected, stage.questions) for each in stage.compared_on)
    ),
)
RULES = (_COMPARED, _SAMPLES, _BENCHMARKS, _PART)
