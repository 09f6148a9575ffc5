"""Three hours of simulated metrics of a run, as recorded by Prometheus.

Problem: panels and rules must be tested on a complete run with known failures, but a real run takes hours and its true
failure rates are unknown. Decision: a seeded simulation generates the samples of every scrape: SFT, stratification,
GRPO whose pod is lost once, evaluation, tools with known failure rates and one outage, and the operator. Values are
simulated; names and labels are real, because tests compare them with the registered metrics.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from gog import step_metrics

START = 1_767_600_000
"""Seconds since 1970: a Monday morning. Fixed, so that images are the same each time."""
TICK = 30
"""Seconds between scrapes."""
ATTEMPT_FAILURE = {"grounding": 0.01, "imageSearch": 0.05, "textSearch": 0.05, "judge": 0.02}
BACKEND = "http"
TYPICAL_SECONDS = {"grounding": 0.12, "imageSearch": 0.9, "textSearch": 0.6, "judge": 0.35}
PRICE = {"imageSearch": 0.01, "textSearch": 0.002}
KINDS = {"timeout": 0.4, "rate_limited": 0.3, "server_error": 0.2, "connection": 0.07, "malformed": 0.03}
OTHER_KINDS = ("refused", "auth", "no_credit", "budget", "breaker_open", "undecided", "cache_miss")
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
LONG_BUCKETS = (1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)

Labels = tuple[tuple[str, str], ...]


@dataclass
class Recording:
    """What was scraped: {family: (type, {(sample name, labels): [(time, value)]})}."""

    families: dict[str, tuple[str, dict[tuple[str, Labels], list[tuple[int, float]]]]] = field(default_factory=dict)

    def open_metrics(self) -> Iterator[str]:
        for family, (kind, series) in self.families.items():
            yield f"# TYPE {family} {kind}\n"
            for (name, labels), samples in series.items():
                inside = ",".join(f'{key}="{value}"' for key, value in labels)
                yield from (f"{name}{{{inside}}} {value:.10g} {time}\n" for time, value in samples)
        yield "# EOF\n"

    def total(self, name: str, **labels: str) -> float:
        """How much a counter grew, over all pods; labels choose."""
        return sum(
            samples[-1][1]
            for _, series in self.families.values()
            for (each, has), samples in series.items()
            if each == name and labels.items() <= dict(has).items()
        )


@dataclass
class Pod:
    """One process with /metrics. target: labels that the scrape adds."""

    target: Mapping[str, str]
    values: dict[tuple[str, str, str, Labels], float] = field(default_factory=dict)

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        key = ("counter", name, f"{name}_total", tuple(labels.items()))
        self.values[key] = self.values.get(key, 0.0) + amount

    def set(self, name: str, value: float, **labels: str) -> None:
        self.values["gauge", name, name, tuple(labels.items())] = value

    def observe(self, name: str, seen: np.ndarray, buckets: tuple[float, ...] = BUCKETS, **labels: str) -> None:
        own = tuple(labels.items())
        for bound in (*buckets, math.inf):
            text = "+Inf" if bound == math.inf else f"{bound:g}"
            self._grow("histogram", name, f"{name}_bucket", (*own, ("le", text)), float((seen <= bound).sum()))
        self._grow("histogram", name, f"{name}_count", own, float(len(seen)))
        self._grow("histogram", name, f"{name}_sum", own, float(seen.sum()))

    def _grow(self, kind: str, family: str, sample: str, labels: Labels, amount: float) -> None:
        key = (kind, family, sample, labels)
        self.values[key] = self.values.get(key, 0.0) + amount

    def scrape(self, time: int, into: Recording) -> None:
        for (kind, family, sample, labels), value in self.values.items():
            _, series = into.families.setdefault(family, (kind, {}))
            series.setdefault((sample, (*labels, *self.target.items())), []).append((time, value))
        _, series = into.families.setdefault("up", ("gauge", {}))
        series.setdefault(("up", tuple(self.target.items())), []).append((time, 1.0))


STEPS = {"sft": 40, "stratify": 30, "grpo": 100, "evaluate": 40}
SCHEDULE = (
    ("sft", 1, 4, 30),
    ("stratify", 1, 33, 47),
    ("grpo", 1, 50, 92),
    ("grpo", 2, 97, 160),
    ("evaluate", 1, 163, 178),
)
"""(stage, attempt, first minute, last minute)."""
MINUTES = 180
OUTAGE = (118, 125)
"""Minutes in which image search is in trouble."""
OUTAGE_FAILURE = 0.45
BREAKER = (121, 124)
END = START + MINUTES * 60


def recorded(*, seed: int = 5, on_cluster: bool = True) -> Recording:
    """on_cluster: with labels namespace, run and pod; without, as `gog run` on one machine."""
    recording, rng = Recording(), np.random.default_rng(seed)
    operator = Pod(target(on_cluster, "gog-system/gog-operator", "gog-system", "gog-operator-6c5d"))
    servers = Pod(target(on_cluster, "gog-system/gog-operator-runs", "team-a", "world-judge-0", run="world"))
    pods: dict[tuple[str, int], Pod] = {}
    for time in range(START, END + 1, TICK):
        minute = (time - START) / 60
        for stage, attempt, first, last in SCHEDULE:
            if not first <= minute <= last:
                continue
            name = f"world-{stage}-a{attempt}-trainer-0-0"
            new = Pod(target(on_cluster, "gog-system/gog-operator-runs", "team-a", name, run="world"))
            pod = pods.setdefault((stage, attempt), new)
            if pod is new:
                begin(pod, stage)
            work(pod, servers, stage, minute, time, share_done(stage, minute), rng)
            pod.scrape(time, recording)
        serve_and_operate(servers, operator, minute, time, rng)
        servers.scrape(time, recording)
        operator.scrape(time, recording)
    return recording


def target(on_cluster: bool, job: str, namespace: str, pod: str, run: str = "") -> dict[str, str]:
    if not on_cluster:
        return {"job": "gog", "instance": f"127.0.0.1:{pod}"}
    return {"job": job, "namespace": namespace, "pod": pod, "instance": f"{pod}:9090"} | ({"run": run} if run else {})


def share_done(stage: str, minute: float) -> float:
    """Of a stage's work, its attempts together; what was done after the last checkpoint is done again."""
    spans = [(first, last) for name, _, first, last in SCHEDULE if name == stage]
    done = sum(min(max(minute - first, 0.0), last - first) for first, last in spans)
    return min(1.0, done / (sum(last - first for first, last in spans) - 1.0))


def begin(pod: Pod, stage: str) -> None:
    """What starts at 0."""
    pod.set("gog_train_steps_planned", STEPS[stage], stage=stage)
    for operation in ("publish", "fetch"):
        for outcome in ("ok", "refused", "unavailable", "error"):
            pod.add("gog_store_operations", 0, operation=operation, outcome=outcome)
        pod.add("gog_store_bytes", 0, operation=operation)
        pod.add("gog_store_retries", 0, operation=operation)
    if stage == "sft":
        return
    for tool in ATTEMPT_FAILURE:
        for outcome in ("ok", *KINDS, *OTHER_KINDS):
            pod.add("gog_tool_calls", 0, tool=tool, backend=BACKEND, outcome=outcome)
            pod.add("gog_tool_attempts", 0, tool=tool, backend=BACKEND, outcome=outcome)
        pod.set("gog_tool_breaker_open", 0, tool=tool, backend=BACKEND)
        for decision in ("waited", "retried", "hedged", "breaker", "budget", "fell_back"):
            pod.add("gog_tool_decisions", 0, tool=tool, decision=decision)
        pod.add("gog_external_spend_usd", 0, tool=tool, backend=BACKEND)
    for status in ("counted", "tool_failure", "judge"):
        pod.add("gog_rollout_trajectories", 0, stage=stage, status=status)
    pod.add("gog_stage_skipped", 0, stage=stage)
    for outcome in ("yes", "no", "undecided"):
        pod.add("gog_judge_verdicts", 0, outcome=outcome)


def work(pod: Pod, servers: Pod, stage: str, minute: float, time: int, done: float, rng: np.random.Generator) -> None:
    step = int(done * STEPS[stage])
    pod.set("gog_train_step", step, stage=stage)
    pod.set("gog_train_last_step_timestamp_seconds", time - rng.uniform(0, 25), stage=stage)
    if stage in ("sft", "grpo"):
        learn(pod, stage, done, rng)
        save(pod, stage, minute, time, rng)
    if stage != "sft":
        roll_out(pod, stage, minute, rng)
    if stage == "stratify":
        for level, share in (("easy", 0.31), ("1", 0.24), ("2", 0.44), ("unknown", 0.01)):
            pod.set("gog_level_questions", round(640 * share * done), level=level)
    if stage == "evaluate" and done > 0.5:
        for policy, accuracy in (("base", 0.41), ("sft", 0.56), ("grpo", 0.73)):
            pod.set("gog_evaluation_accuracy", accuracy, policy=policy)


def learn(pod: Pod, stage: str, done: float, rng: np.random.Generator) -> None:
    for metric in step_metrics.of_stage(stage):  # a plain course for each; those below have their own
        if metric.gauge:
            labels = dict(metric.labels) | ({"stage": stage} if metric.by_stage else {})
            pod.set(metric.gauge, 0.4 + 0.2 * done, **labels)
    noise = rng.normal()
    loss = 1.9 * math.exp(-3.2 * done) + 0.42 if stage == "sft" else 0.02
    pod.set("gog_train_loss", loss + 0.02 * noise, stage=stage)
    pod.set("gog_train_grad_norm", 0.6 + 0.5 * math.exp(-4 * done) + 0.06 * abs(noise))
    pod.set("gog_train_tokens_per_second", (5200 if stage == "sft" else 2900) + 120 * noise, stage=stage)
    pod.set("gog_train_mfu", (0.41 if stage == "sft" else 0.29) + 0.008 * noise, stage=stage)
    parts = {"train": 11.0, "checkpoint": 0.8}
    if stage == "grpo":
        parts |= {"rollout": 24 - 6 * done, "tools": 5.0, "judge": 1.5, "reference": 3.0, "sync": 1.6}
    seconds = {part: value * (1 + 0.05 * rng.normal()) for part, value in parts.items()}
    for part, value in (seconds | {"total": sum(seconds.values())}).items():
        pod.set("gog_train_step_seconds", value, part=part)
    if stage == "sft":
        pod.set("gog_train_eval_loss", loss + 0.05)
        pod.set("gog_train_eval_token_accuracy", 1 - 0.4 * loss)
        return
    accuracy = 0.5 + 0.27 * (1 - math.exp(-3 * done)) + 0.018 * noise
    layout = min(1.0, 0.9 + 0.09 * (1 - math.exp(-8 * done)) + 0.005 * rng.normal())
    pod.set("gog_reward_mean", 0.9 * accuracy + 0.1 * layout, component="reward")
    pod.set("gog_reward_mean", accuracy, component="accuracy")
    pod.set("gog_reward_mean", layout, component="format")
    pod.set("gog_reward_std", 0.33 - 0.14 * done + 0.01 * rng.normal())
    pod.set("gog_train_kl", 0.0005 + 0.011 * done + 0.0006 * abs(rng.normal()))
    pod.set("gog_train_clip_frac", 0.012 + 0.02 * done + 0.003 * abs(rng.normal()))
    pod.set("gog_train_logp_diff_mean", 0.008)
    pod.set("gog_train_engine_kl", 0.0002)
    pod.set("gog_canary_adapter_effect", 1.2 + 0.4 * done)
    pod.set("gog_canary_image_effect", 0.7)
    pod.set("gog_train_tis_truncated_frac", 0.001)
    pod.set("gog_train_frac_reward_zero_std", 0.18 + 0.25 * done + 0.03 * rng.normal())
    pod.set("gog_train_entropy", 0.92 - 0.38 * done + 0.015 * rng.normal())
    pod.set("gog_rollout_staleness_steps", float(int(done * 50) % 7 == 3))


def save(pod: Pod, stage: str, minute: float, time: int, rng: np.random.Generator) -> None:
    """A checkpoint every six minutes; one in twelve requests is tried again."""
    if minute % 6 == 0:
        pod.set("gog_checkpoint_timestamp_seconds", time, stage=stage)
        pod.add("gog_store_operations", operation="publish", outcome="ok")
        pod.add("gog_store_bytes", 2.1e9, operation="publish")
        pod.observe("gog_store_operation_duration_seconds", rng.lognormal(1.6, 0.2, 1), operation="publish")
        pod.add("gog_store_retries", float(rng.random() < 0.3), operation="publish")
    elif minute % 6 == 1:
        pod.add("gog_store_operations", operation="fetch", outcome="ok")
        pod.add("gog_store_bytes", 3.0e8, operation="fetch")
        pod.observe("gog_store_operation_duration_seconds", rng.lognormal(0.5, 0.2, 1), operation="fetch")
    elif minute == 66.5:
        pod.add("gog_store_operations", operation="publish", outcome="unavailable")


def roll_out(pod: Pod, stage: str, minute: float, rng: np.random.Generator) -> None:
    """One tick's episodes: calls with up to three attempts each, verdicts, trajectories."""
    n, lost = int(rng.poisson(40)), 0
    out = OUTAGE[0] <= minute < OUTAGE[1]
    for tool in ATTEMPT_FAILURE:
        calls = n if tool == "judge" else int(n * 1.4)
        down = out and tool == "imageSearch"
        failed = call(pod, tool, calls, OUTAGE_FAILURE if down else ATTEMPT_FAILURE[tool], rng)
        pod.set("gog_tool_breaker_open", float(down and BREAKER[0] <= minute < BREAKER[1]), tool=tool, backend=BACKEND)
        pod.set("gog_tool_down", float(down and BREAKER[0] <= minute < BREAKER[1]), tool=tool)
        pod.add("gog_external_spend_usd", PRICE.get(tool, 0.0) * (calls - failed), tool=tool, backend=BACKEND)
        lost += failed if tool != "judge" else 0
        pod.add("gog_tool_decisions", round(1.1 * ATTEMPT_FAILURE[tool] * calls), tool=tool, decision="retried")
        pod.add("gog_tool_decisions", failed if down else 0, tool=tool, decision="breaker")
        for result, share in (("hit", 0.28), ("joined", 0.07), ("miss", 0.65)):
            pod.add("gog_tool_cache_requests", rng.poisson(calls / 0.65 * share), tool=tool, result=result)
    pod.set("gog_external_credit_usd", 240 - 0.9 * minute, tool="imageSearch", backend=BACKEND)
    pod.set("gog_external_credit_usd", 85 - 0.12 * minute, tool="textSearch", backend=BACKEND)
    lost, unjudged = min(lost, n), int(rng.binomial(n, 0.006))
    for status, count in (("counted", max(0, n - lost - unjudged)), ("tool_failure", lost), ("judge", unjudged)):
        pod.add("gog_rollout_trajectories", count, stage=stage, status=status)
    right = int(0.6 * (n - unjudged))
    for outcome, count in (("yes", right), ("no", n - unjudged - right), ("undecided", unjudged)):
        pod.add("gog_judge_verdicts", count, outcome=outcome)
    pod.set("gog_judge_success_ratio", 1 - 0.006 - 0.004 * abs(rng.normal()))
    pod.add("gog_rollout_tokens", rng.normal(52_000, 2_500), kind="generated")
    pod.add("gog_rollout_tokens", rng.normal(140_000, 7_000), kind="prefilled")
    pod.observe("gog_event_loop_lag_seconds", rng.lognormal(math.log(0.002), 0.9, 300), LAG_BUCKETS)
    pod.observe("gog_rollout_seconds", rng.lognormal(3.0, 0.25, 1), LONG_BUCKETS)


def call(pod: Pod, tool: str, calls: int, rate: float, rng: np.random.Generator) -> int:
    """`calls` calls of up to three attempts; the number that failed after all."""
    left = calls
    for _ in range(3):
        failed = int(rng.binomial(left, rate))
        pod.add("gog_tool_attempts", left - failed, tool=tool, backend=BACKEND, outcome="ok")
        for kind, count in zip(KINDS, rng.multinomial(failed, list(KINDS.values()))):
            pod.add("gog_tool_attempts", int(count), tool=tool, backend=BACKEND, outcome=kind)
        left = failed
    pod.add("gog_tool_calls", calls - left, tool=tool, backend=BACKEND, outcome="ok")
    for kind, count in zip(KINDS, rng.multinomial(left, list(KINDS.values()))):
        pod.add("gog_tool_calls", int(count), tool=tool, backend=BACKEND, outcome=kind)
    slow = rng.lognormal(math.log(TYPICAL_SECONDS[tool]), 0.6, calls)
    pod.observe("gog_tool_call_duration_seconds", slow, tool=tool, backend=BACKEND)
    return left


def serve_and_operate(servers: Pod, operator: Pod, minute: float, time: int, rng: np.random.Generator) -> None:
    for server in ("grounding", "judge", "text-search"):
        n = int(rng.poisson(60 if minute > 33 else 14))
        failed = int(rng.binomial(n, 0.012))
        for outcome, count in (("ok", n - failed), ("server_error", failed), ("client_error", 0), ("gone", 0)):
            servers.add("gog_server_requests", count, server=server, outcome=outcome)
        slow = rng.lognormal(math.log(0.08 if server == "text-search" else 0.2), 0.5, n)
        servers.observe("gog_server_request_duration_seconds", slow, server=server)
    for arm, mean in (("served", 18), ("canary", 2)):
        n = int(rng.poisson(mean))
        failed = int(rng.binomial(n, 0.02))
        for outcome, count in (("answered", n - failed), ("failed", failed), ("malformed", 0)):
            servers.add("gog_agent_chats", count, arm=arm, outcome=outcome)
        servers.observe("gog_agent_chat_duration_seconds", rng.lognormal(1.2, 0.4, n - failed), arm=arm)
    operate(operator, minute, time, rng)


def operate(operator: Pod, minute: float, time: int, rng: np.random.Generator) -> None:
    busy = minute % 30 < 6
    for kind in ("GoGRun", "GRPOStage", "ToolServer"):
        slow = rng.lognormal(math.log(0.03), 0.5, int(rng.poisson(4)))
        operator.observe("gog_operator_reconcile_duration_seconds", slow, kind=kind)
    depth = float(rng.poisson(3.0 if busy else 0.4))
    operator.set("gog_operator_queue_depth", depth)
    operator.set("gog_operator_queue_age_seconds", depth * rng.uniform(0.2, 0.8))
    operator.set("gog_operator_last_resync_timestamp_seconds", time - (time % 60) - rng.uniform(0, 4))
    operator.set("gog_operator_leader", 1)
    for status, mean in (("409", 0.3), ("429", 1.2 if 84 < minute < 90 else 0.02), ("500", 0.01)):
        operator.add("gog_operator_api_errors", int(rng.poisson(mean)), status=status)
    running = [(name, last) for name, _, first, last in SCHEDULE if first <= minute <= last]
    objects(operator, minute, [name for name, _ in running])


def objects(operator: Pod, minute: float, running: list[str]) -> None:
    ended = defaultdict(int)
    for stage, _, _, last in SCHEDULE:
        ended[stage] += minute > last
    for condition, count in (
        ("Ready", 1 + (minute < 60)),
        ("Complete", 3 + (minute >= 60)),
        ("Failed", 1),
        ("Pending", 0),
    ):
        operator.set("gog_operator_runs", count, condition=condition)
    kinds = {"SFTStage": "sft", "StratifyStage": "stratify", "GRPOStage": "grpo", "EvaluateStage": "evaluate"}
    for kind, stage in kinds.items():
        finished = float(ended[stage] > (stage == "grpo"))
        operator.set("gog_operator_stages", float(stage in running) + (stage == "grpo"), kind=kind, condition="Ready")
        operator.set("gog_operator_stages", 3 + finished, kind=kind, condition="Complete")
        operator.set("gog_operator_stages", float(stage == "grpo"), kind=kind, condition="Failed")
        now = ended[stage]
        for outcome, count in (
            ("succeeded", finished),
            ("failed", 0.0),
            ("interrupted", float(stage == "grpo" and now >= 1)),
        ):
            key = (
                "counter",
                "gog_operator_attempts",
                "gog_operator_attempts_total",
                (("kind", kind), ("outcome", outcome)),
            )
            operator.values[key] = count
    for role in ("grounding", "imageSearch", "judge", "policy"):
        waits = float(role == "policy" and 30 < minute < 33)
        operator.set("gog_operator_tool_servers", 1 - waits, role=role, ready="true")
        operator.set("gog_operator_tool_servers", waits, role=role, ready="false")
