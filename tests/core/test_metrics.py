"""Metrics and progress: names that dashboards rely on, and a report that is written completely or not at all."""

from __future__ import annotations

import ast
import asyncio
import threading
import urllib.request
from pathlib import Path

import pytest

from gog import metrics, progress, step_metrics, tool_api, tool_transport
from gog.errors import UserError
from gog.metrics import definitions, document, loop_lag, serving
from gog.store import Unavailable, faults, parts
from gog.store.counted import counted
from gog.tool_types import Decision, FailureKind

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("core/gog", "operator/gog_operator", "recipes/gog_recipes", "tool_servers/gog_tools")
LABELS = {
    "arm",
    *(
        "tool",
        "backend",
        "outcome",
        "result",
        "stage",
        "status",
        "kind",
        "watched_namespace",
        "component",
        "part",
        "decision",
        "level",
        "policy",
    ),
    *("operation", "server", "condition", "role", "ready", "method", "code"),
}


def value(name: str, **labels: str) -> float | None:
    return metrics.REGISTRY.get_sample_value(name, labels)


# ---- definitions


@pytest.mark.parametrize("each", metrics.DEFINITIONS, ids=lambda each: each.name)
def test_every_name_has_the_prefix_and_a_base_unit_and_every_label_is_bounded(each) -> None:
    assert each.name.startswith("gog_")
    assert not each.name.endswith(("_ms", "_milliseconds", "_minutes", "_mb", "_percent", "_total"))
    assert each.help.endswith(".") and each.unit
    assert set(each.labels) <= LABELS and all(each.labels.values())
    assert tuple(sorted(each.buckets)) == each.buckets and bool(each.buckets) == (each.kind == "histogram")


def test_no_name_is_defined_twice() -> None:
    names = [each.name for each in metrics.DEFINITIONS]
    assert len(names) == len(set(names))


def test_outcomes_are_the_kinds_of_tool_failure() -> None:
    assert ("ok", *FailureKind) == metrics.OUTCOMES


def test_decisions_are_those_of_the_call_path() -> None:
    assert set(metrics.DECISIONS) == set(Decision) - {Decision.CACHED, Decision.JOINED}


def test_every_metric_is_emitted_by_code_that_is_called() -> None:
    """A definition is used by a function of `emit`, or by name, and that is used outside of metrics."""
    constants = {
        target.id: node.value.args[0].value
        for node in ast.parse(Path(definitions.__file__).read_text()).body
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Attribute)
        and isinstance(node.value.args[0], ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    of_steps = set(definitions.STEP_GAUGES)  # record_step sets them from the rows of step_metrics
    assert set(constants.values()) | of_steps == {each.name for each in metrics.DEFINITIONS}
    emit = ast.parse(Path(definitions.__file__).with_name("emit.py").read_text())
    uses = {each.name: used_of(each, "d") for each in emit.body if isinstance(each, ast.FunctionDef)}
    called = {
        name
        for folder in SOURCES
        for path in (ROOT / folder).rglob("*.py")
        if "metrics" not in path.relative_to(ROOT).parts[:3]
        for name in used_of(ast.parse(path.read_text()), "metrics")
    }
    emitted = called | {constant for name in called & set(uses) for constant in uses[name] if name[:10] != "initialise"}
    assert set(constants) - emitted == set()


def test_the_documentation_is_what_the_definitions_say() -> None:
    assert (ROOT / "docs/metrics.md").read_text() == document.page(), "run: make docs"
    for each in metrics.DEFINITIONS:
        assert document.page().count(f"| `{each.exposed}`<br>") == 1


def used_of(tree: ast.AST, module: str) -> set[str]:
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == module
    }


# ---- values


def test_a_step_s_line_sets_the_gauge_of_every_row_that_has_one() -> None:
    rows = step_metrics.of_stage("grpo")
    metrics.record_step("grpo", "grpo-gauges", {row.key: 10.0 + place for place, row in enumerate(rows)})
    for place, row in enumerate(rows):
        labels = {**row.labels, **({"stage": "grpo-gauges"} if row.by_stage else {})}
        assert not row.gauge or value(row.gauge, **labels) == 10.0 + place


def test_a_figure_that_a_step_does_not_have_leaves_its_gauge_as_it_was() -> None:
    metrics.record_step("sft", "sft-partial", {"loss": 0.25, "tokens_per_second": 5.0})
    metrics.record_step("sft", "sft-partial", {"loss": 0.0, "mfu": None, "tokens": 3})
    assert value("gog_train_loss", stage="sft-partial") == 0, "zero is a value"
    assert value("gog_train_tokens_per_second", stage="sft-partial") == 5
    assert value("gog_train_mfu", stage="sft-partial") is None


@pytest.mark.parametrize("outcome", ["ok", *FailureKind])
def test_every_outcome_starts_at_zero(outcome: str) -> None:
    metrics.initialise_tool("textSearch", "untouched")
    labels = {"tool": "textSearch", "backend": "untouched", "outcome": outcome}
    assert value("gog_tool_calls_total", **labels) == 0
    assert value("gog_tool_attempts_total", **labels) == 0


def test_attempts_are_reported_by_tool_and_outcome() -> None:
    metrics.initialise_tool("reported", "b")
    for outcome in ("ok", "ok", "timeout"):
        metrics.record_tool_attempt("reported", "b", outcome)
    table = metrics.attempts_by_outcome()["reported"]
    assert (table["ok"], table["timeout"], table["malformed"]) == (2, 1, 0)


def test_attempts_at_several_back_ends_of_a_tool_are_counted_together() -> None:
    def so_far() -> int:
        return metrics.attempts_by_outcome().get("summed", {}).get("ok", 0)

    before = so_far()
    for backend in ("a", "b", "a"):
        metrics.record_tool_attempt("summed", backend, "ok")
    assert so_far() - before == 3


def test_a_gauge_without_labels_is_absent_until_it_is_set() -> None:
    page = metrics.STAGES.__class__("test")
    gauge = page.gauge("gog_train_kl", "nats", "Divergence.")
    assert page.registry.get_sample_value("gog_train_kl") is None
    gauge.set(0.0)
    assert page.registry.get_sample_value("gog_train_kl") == 0


def test_costs_of_answers_add_up_and_credit_is_the_last_report() -> None:
    labels = {"tool": "bought", "backend": "b"}
    metrics.initialise_tool(**labels)
    assert (value("gog_external_spend_usd_total", **labels), value("gog_external_credit_usd", **labels)) == (0, None)
    metrics.record_cost("bought", "b", 0.01, 5.0)
    metrics.record_cost("bought", "b", 0.02, None)
    assert value("gog_external_spend_usd_total", **labels) == pytest.approx(0.03)
    assert value("gog_external_credit_usd", **labels) == 5


@pytest.mark.parametrize("nonsense", ["", "free", "nan", "inf", "-1"])
def test_a_header_that_is_no_amount_of_money_is_ignored(nonsense: str) -> None:
    labels = {"tool": "unpriced", "backend": tool_transport.BACKEND}
    metrics.initialise_tool(**labels)
    tool_transport._note_cost("unpriced", {tool_api.COST_HEADER: nonsense, tool_api.CREDIT_HEADER: nonsense})
    assert (value("gog_external_spend_usd_total", **labels), value("gog_external_credit_usd", **labels)) == (0, None)


def test_the_cost_and_credit_in_the_headers_of_an_answer_are_recorded() -> None:
    labels = {"tool": "priced", "backend": tool_transport.BACKEND}
    metrics.initialise_tool(**labels)
    tool_transport._note_cost("priced", {tool_api.COST_HEADER: "0.01", tool_api.CREDIT_HEADER: "12.5"})
    tool_transport._note_cost("priced", {tool_api.COST_HEADER: "0.01"})
    assert value("gog_external_spend_usd_total", **labels) == pytest.approx(0.02)
    assert value("gog_external_credit_usd", **labels) == 12.5


def test_an_operation_within_an_operation_is_counted_once() -> None:
    def counted(operation: str, outcome: str) -> float:
        return value("gog_store_operations_total", operation=operation, outcome=outcome) or 0.0

    def attempt() -> None:
        with (
            metrics.store_operation("commit", lambda _: "refused"),
            metrics.store_operation("read", lambda _: "error"),
        ):
            metrics.record_store_retry()
            raise LookupError

    metrics.initialise_store()
    before = (
        counted("commit", "refused"),
        counted("read", "error"),
        value("gog_store_retries_total", operation="commit"),
    )
    with pytest.raises(LookupError):
        attempt()
    assert counted("commit", "refused") == before[0] + 1
    assert counted("read", "error") == before[1]
    assert value("gog_store_retries_total", operation="commit") == (before[2] or 0) + 1


def test_transfers_in_a_store_s_threads_count_for_the_operation_that_started_them() -> None:
    def so_far(name: str) -> float:
        return value(name, operation="fetch") or 0.0

    def receive(part: int) -> int:
        answers = iter([Unavailable("reset"), None])

        def once() -> int:
            if (trouble := next(answers)) is not None:
                raise trouble
            metrics.record_store_bytes(10)
            return part

        return faults.Patience(sleep=lambda _: None).tries(once, "s3://bucket")

    before = so_far("gog_store_retries_total"), so_far("gog_store_bytes_total")
    with metrics.store_operation("fetch", str):
        assert parts.together(receive, range(3)) == [0, 1, 2]
    metrics.record_store_bytes(10)  # of no operation
    assert so_far("gog_store_retries_total") == before[0] + 3
    assert so_far("gog_store_bytes_total") == before[1] + 30


@pytest.mark.parametrize(("error", "outcome"), [(UserError("x"), "refused"), (Unavailable("x"), "unavailable")])
def test_a_store_that_refuses_and_one_that_does_not_answer_have_different_outcomes(
    error: Exception, outcome: str
) -> None:
    @counted("sweep")
    def sweep() -> None:
        raise error

    before = value("gog_store_operations_total", operation="sweep", outcome=outcome) or 0
    with pytest.raises(type(error)):
        sweep()
    assert value("gog_store_operations_total", operation="sweep", outcome=outcome) == before + 1


def test_a_timer_that_fires_late_is_observed_as_lag() -> None:
    def so_far(suffix: str) -> float:
        return value(f"gog_event_loop_lag_seconds_{suffix}") or 0.0

    clock, late = iter([0.0, 0.1, 0.1, 0.35, 0.35]), iter([False, False, True])

    async def sleep(seconds: float) -> None:
        assert seconds == loop_lag.INTERVAL
        if next(late):
            raise asyncio.CancelledError

    before = so_far("count"), so_far("sum")
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(loop_lag.measure(metrics.record_event_loop_lag, lambda: next(clock), sleep))
    assert so_far("count") == before[0] + 2
    assert so_far("sum") == pytest.approx(before[1] + 0.15)


# ---- the page


@pytest.fixture
def server():
    server = serving.Server({"/metrics": lambda: serving.text(metrics.REGISTRY)}, 0, "127.0.0.1")
    yield server
    server.shutdown()
    server.server_close()


def scrape(server: serving.Server) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=10) as answer:
        return answer.read().decode()


def test_a_process_that_was_never_scraped_does_not_linger(server) -> None:
    assert server.linger(3600) is False


def test_a_process_that_was_scraped_lingers_for_one_more_scrape(server) -> None:
    scrape(server)
    ended = []
    waiting = threading.Thread(target=lambda: ended.append(server.linger(60)), daemon=True)
    waiting.start()
    for _ in range(1000):
        if waiting.is_alive():
            scrape(server)
    waiting.join(10)
    assert ended == [True]


def test_a_process_lingers_no_longer_than_its_limit(server) -> None:
    scrape(server)
    assert server.linger(0) is False
    assert server.linger(0.01) is False


def test_the_page_of_rank_0_has_the_counts_of_all_ranks_and_its_own_gauges() -> None:
    metrics.initialise_tool("together", "b")
    metrics.record_tool_call("together", "b", "ok", 0.02)
    metrics.record_breaker("together", "b", True)
    counts = serving.counts(metrics.REGISTRY)
    counts[("gog_tool_calls_total", (("tool", "together"), ("backend", "c"), ("outcome", "ok")))] = 4.0
    page = serving.MultiRankRegistry(metrics.REGISTRY)
    page.others = [counts, counts]
    lines = serving.text(page)[1].decode().splitlines()
    assert 'gog_tool_calls_total{backend="b",outcome="ok",tool="together"} 3.0' in lines
    assert 'gog_tool_calls_total{backend="c",outcome="ok",tool="together"} 8.0' in lines
    assert 'gog_tool_call_duration_seconds_bucket{backend="b",le="0.025",tool="together"} 3.0' in lines
    assert 'gog_tool_breaker_open{backend="b",tool="together"} 1.0' in lines


# ---- progress


def test_progress_is_read_as_it_was_reported(tmp_path: Path) -> None:
    progress.report(tmp_path / "work", 3, 10, {"loss": 0.5})
    progress.report(tmp_path / "work", 4, 10)
    assert progress.read(tmp_path / "work") == {"step": 4, "total": 10, "metrics": {}, "checkpoint": None}
    assert [path.name for path in (tmp_path / "work").iterdir()] == [progress.FILE]


@pytest.mark.parametrize("content", [None, "", '{"step": 3'])
def test_missing_or_incomplete_progress_is_none(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / progress.FILE).write_text(content)
    assert progress.read(tmp_path) is None
