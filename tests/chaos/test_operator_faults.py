"""A fault at any call of an operator does not change a run's outcome, tested on a real API server.

The suite tests a sample of the calls; all of them are `exhaustive` (`make faults`, in shards `make faults SHARD=2/8`).
The run under test makes every kind of call: it looks up skipped stages, generates the dataset, retries a stage that
fails once, loads and serves the policy, and writes the report.
"""

from __future__ import annotations

import functools
import itertools
import random
import time
from collections.abc import Iterable

import pytest
from support import fault_shards, fault_suite
from support.fault_cases import ENDINGS, INTERFERENCE, LEAST, STALE, VARIANTS, Case, Outcome, deaths, run_case
from support.fault_harness import Harness, OperatorProcess, phase
from support.fault_verdict import fault_found
from support.faulty_api import ANSWERS, Call, FaultyApi, no_fault
from support.turns import Turns

from gog_operator import lease
from gog_operator.cluster import paths
from gog_operator.cluster.kube import Api, ApiError

pytestmark = pytest.mark.apiserver

DEATHS = ("dies before", "dies after")
SEED = 4
STRIDE = 211
"""Calls between two faults in the complete run, which makes about 1,600 calls."""
PREFIXES = (f"case-{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def kubeconfig(bare_api_server):
    return str(bare_api_server.kubeconfig)


@pytest.fixture(scope="module")
def baseline(kubeconfig):
    """Returns the outcome of a variant's run without a fault."""

    @functools.cache
    def of(variant: str) -> Outcome:
        outcome = run_case(kubeconfig, f"baseline-{variant}", Case(variant))
        assert not outcome.violation
        if variant == "erased":
            assert not outcome.state and any(" Erased: " in each for each in outcome.events)
        else:
            assert outcome.state["gogruns.gog.dev/world"][0][0][0] == "Complete"
        return outcome

    return of


@pytest.fixture(scope="module")
def pool():
    with fault_suite.processes() as processes:
        yield processes


@pytest.fixture
def check_cases(request, pool, kubeconfig, baseline):
    """Runs the cases of this session's shard; fails with a list of all wrong outcomes."""
    tally = request.config.stash[fault_shards.TALLY]
    counts = request.node.get_closest_marker("exhaustive") is not None

    def check(cases: Iterable[Case]) -> None:
        every, begun, wrongs = list(cases), time.monotonic(), []
        chosen = [each for each in every if each in tally.shard]
        for number, each in enumerate(fault_suite.play_all(pool, kubeconfig, next(PREFIXES), chosen), 1):
            wrong = fault_found(each, baseline(each.case.variant))
            if wrong:
                wrongs.append(f"{each.case.fault} at call {each.case.call}, {each.struck}: {wrong}")
            if counts:
                tally.add(bool(wrong), len(chosen) - number)
        if counts:
            tally.total += len(every)
            tally.seconds += time.monotonic() - begun
        assert not wrongs, f"{len(wrongs)} of {len(chosen)}:\n" + "\n".join(wrongs)

    return check


def positions(baseline: Outcome) -> range:
    return range(1, len(baseline.calls) + 1)


def writes(baseline: Outcome) -> list[int]:
    """Numbers of the calls that write."""
    return [number for number in positions(baseline) if baseline.calls[number - 1].writes]


def until_the_first_stage(baseline: Outcome) -> list[int]:
    """Numbers of the writes up to the creation of the first stage."""
    created = [number for number in writes(baseline) if baseline.calls[number - 1].request.endswith("stages")]
    return [number for number in writes(baseline) if number <= created[0]]


def test_a_death_or_an_error_response_at_some_call_does_not_change_the_outcome(check_cases, baseline):
    chance, run = random.Random(SEED), baseline("least")
    faults = (*DEATHS, *ANSWERS, *STALE, "every answer", "outage")
    check_cases(Case("least", fault, chance.choice(chance.choice((writes(run), positions(run))))) for fault in faults)


def test_deletions_and_edits_by_other_users_cost_attempts_at_most(check_cases, baseline):
    chance = random.Random(SEED)
    faults = (*chance.sample(sorted(INTERFERENCE), 6), *ENDINGS)
    check_cases(Case("least", fault, chance.choice(positions(baseline("least")))) for fault in faults)


def test_faults_during_the_check_of_the_tools_do_not_change_the_outcome(check_cases, baseline):
    chance, checks = random.Random(SEED), until_the_first_stage(baseline("tools"))
    faults = (*DEATHS, "every answer")
    check_cases(Case("tools", fault, chance.choice(checks)) for fault in faults)


@pytest.mark.parametrize("variant", ["erased", "fetched"])
def test_faults_during_an_erasure_and_a_fetch_do_not_change_the_outcome(check_cases, baseline, variant):
    chance, run = random.Random(SEED), baseline(variant)
    faults = (*DEATHS, "every answer", "events lost", "outage", *ENDINGS)
    check_cases(Case(variant, fault, chance.choice(writes(run))) for fault in faults)


@pytest.mark.exhaustive
@pytest.mark.parametrize("variant", ["erased", "fetched"])
def test_every_death_and_every_answer_during_an_erasure_and_a_fetch(check_cases, baseline, variant):
    run = baseline(variant)
    check_cases(Case(variant, fault, call) for fault, call in deaths(run.calls))
    faults = ("every answer", *STALE, *ENDINGS, "outage")
    check_cases(Case(variant, fault, call) for fault in faults for call in writes(run))


@pytest.mark.exhaustive
def test_every_fault_at_every_call_until_the_tools_are_checked(check_cases, baseline):
    run, checks = baseline("tools"), until_the_first_stage(baseline("tools"))
    check_cases(Case("tools", fault, call) for fault, call in deaths(run.calls) if call <= checks[-1])
    check_cases(Case("tools", "every answer", call) for call in range(1, checks[-1] + 1))
    faults = ("store job deleted", "settings deleted", "tool server deleted", "every status wiped", *ENDINGS, "outage")
    check_cases(Case("tools", fault, call) for fault in faults for call in checks)


@pytest.mark.exhaustive
def test_an_operator_may_die_before_and_after_every_call_of_a_run(check_cases, baseline):
    check_cases(Case("least", fault, call) for fault, call in deaths(baseline("least").calls))


@pytest.mark.exhaustive
def test_every_call_of_a_run_may_get_every_error_response(check_cases, baseline):
    """Each call gets all error responses in succession; each write also gets each of them alone."""
    check_cases(Case("least", "every answer", call) for call in positions(baseline("least")))
    check_cases(Case("least", answer, call) for answer in ANSWERS for call in writes(baseline("least")))


@pytest.mark.exhaustive
def test_events_may_be_late_or_lost_from_every_write_on(check_cases, baseline):
    """Until the second resync after it, the operator decides on objects that it has seen before."""
    check_cases(Case("least", fault, call) for fault in STALE for call in writes(baseline("least")))


@pytest.mark.exhaustive
def test_other_users_may_delete_and_edit_at_every_step(check_cases, baseline):
    """Injects each fault at every third write, with a different offset for successive faults."""
    run = writes(baseline("least"))
    faults = (*INTERFERENCE, *ENDINGS, "outage")
    check_cases(Case("least", fault, call) for number, fault in enumerate(faults) for call in run[number % 3 :: 3])


@pytest.mark.exhaustive
def test_the_whole_world_survives_faults_at_calls_all_over_its_run(check_cases, baseline):
    faults = ("dies before", "500 after all", "outage")
    check_cases(Case("world", fault, call) for fault in faults for call in positions(baseline("world"))[::STRIDE])


# -- the suite itself


def test_deaths_without_an_effect_between_them_are_run_once():
    read, write = "GET /a", "PATCH /a"
    calls = (Call(read, 1, 0), Call(read, 1, 0), Call(write, 1, 0), Call(read, 1, 1), Call(read, 2, 1))
    assert list(deaths(calls)) == [("dies before", 1), ("dies after", 3), ("dies before", 5)]


def test_deaths_before_and_after_a_request_to_a_policy_pod_are_both_run():
    calls = (Call("GET /a", 1, 0), Call("GET /b", 1, 1))
    assert list(deaths(calls)) == [("dies before", 1), ("dies before", 2)]


@pytest.mark.parametrize(("call", "accepted"), [(2, False), (3, True), (4, True)])
def test_a_stage_may_end_differently_only_after_its_run_was_decided(call, accepted):
    run, stage = "gogruns.gog.dev/world", "sftstages.gog.dev/world-sft"
    requests = ("GET /apis/gog.dev/x/gogruns/world", "GET /apis/gog.dev/x/sftstages/world-sft", "PATCH /apis/batch/x")
    calls = tuple(
        map(Call, (*requests, "PATCH /apis/gog.dev/x/gogruns/world/status", "PATCH /apis/gog.dev/x/sftstages"))
    )
    essence = [[["Complete", "True", "", ""]], {"ended": {"attempt": 2}}, {}]
    clean = Outcome(Case("least"), {run: essence, stage: essence}, {}, calls, 4, "", 0.0)
    cancelled = [[["Failed", "True", "Cancelled", ""]], {"ended": {"attempt": 0}}, {}]
    case = Case("least", "stage's status wiped", call)
    found = fault_found(Outcome(case, {run: essence, stage: cancelled}, {}, calls, 4, "", 0.0), clean)
    assert (not found) is accepted


@pytest.mark.parametrize(("call", "accepted"), [(2, False), (3, True), (5, True)])
def test_a_stage_may_be_gone_if_it_was_deleted_after_its_run_was_complete(call, accepted):
    run, stage = "gogruns.gog.dev/world", "sftstages.gog.dev/world-sft"
    write, read = "PATCH /apis/gog.dev/x/gogruns/world/status", "GET /apis/gog.dev/x/toolservers/world-policy"
    requests = ("GET /apis/gog.dev/x/gogruns/world", "GET /apis/gog.dev/x/sftstages/world-sft", "POST /x", write)
    calls = tuple(map(Call, (*requests, "POST /y", read, write)))
    essence = [[["Complete", "True", "", ""]], {}, {}]
    clean = Outcome(Case("least"), {run: essence, stage: essence}, {}, calls, 4, "", 0.0)
    found = fault_found(Outcome(Case("least", "stage deleted", call), {run: essence}, {}, calls, 4, "", 0.0), clean)
    assert (not found) is accepted


def test_interference_may_cost_attempts():
    key = "gogruns.gog.dev/world"
    two, three = ({key: [[], {"attempt": n, "ended": {"attempt": n, "message": ""}}, {}]} for n in (2, 3))
    clean = Outcome(Case("least"), two, {}, (), 0, "", 0.0)
    assert not fault_found(Outcome(Case("least", "job deleted", 1), three, {}, (), 0, "", 0.0), clean)


def test_shards_are_disjoint_and_cover_all_cases():
    cases = [Case("least", fault, call) for fault in ANSWERS for call in range(100)]
    shards = [[case for case in cases if case in fault_shards.Shard(number, 8)] for number in range(1, 9)]
    assert sorted(map(str, itertools.chain(*shards))) == sorted(map(str, cases))
    assert max(map(len, shards)) < 1.5 * len(cases) / 8


@pytest.mark.parametrize("text", ["0/8", "9/8", "2", "a/b", "-1/8", ""])
def test_a_shard_that_does_not_exist_is_refused(text):
    with pytest.raises(pytest.UsageError, match="not of the form 2/8"):
        fault_shards.Shard.parse(text)


# -- two operators


class TakesTurns(Api):
    """An Api that lets the other operator run before some of its calls."""

    def __init__(self, api: Api, turns: Turns, me: int) -> None:
        self.api, self.turns, self.me = api, turns, me

    def send(self, request):
        self.turns.step(self.me)
        return self.api.send(request)


class Pair(Harness):
    """Two operators on one run."""

    def __init__(self, kubeconfig, namespace, seed):
        self.turns, self.other = Turns(random.Random(seed), 2), None
        super().__init__(kubeconfig, namespace, **LEAST)
        VARIANTS["least"][1](self)
        first, second = (TakesTurns(self.faulty, self.turns, number) for number in (0, 1))
        self.operator = OperatorProcess(first, self.namespace, self.clock, self.request)
        self.other = OperatorProcess(second, self.namespace, self.clock, self.request)
        self.recorder.listeners.append(self.other.observe)

    def work(self):
        self.turns.play([self.operator.work, self.other.work])


@pytest.mark.parametrize("seed", range(4))
def test_two_concurrent_operators_reach_the_same_state_as_one(kubeconfig, baseline, seed):
    pair = Pair(kubeconfig, f"pair-{seed}", seed)
    pair.run_to_the_end()
    assert set(pair.state()) == set(baseline("least").state)
    assert pair.get("SFTStage", "world-sft")["status"]["attempt"] == 2
    assert pair.get("SFTStage", "world-sft")["status"]["failures"] == 1
    assert len(pair.faulty.calls) < 3 * len(baseline("least").calls)


def test_of_two_operators_only_the_one_that_holds_the_lease_writes(kubeconfig, baseline):
    harness = Harness(kubeconfig, "lease-1", **LEAST)
    VARIANTS["least"][1](harness)
    apis = [FaultyApi(harness.recorder, no_fault) for _ in range(2)]
    leases = [
        lease.Lease(harness.api, "lease-1", "gog-operator", f"operator-{number}", harness.clock.seconds)
        for number in range(2)
    ]
    operators = [
        OperatorProcess(lease.GatedApi(api, one), "lease-1", harness.clock, harness.request)
        for api, one in zip(apis, leases)
    ]
    harness.operator = operators[0]
    harness.recorder.listeners.append(operators[1].observe)

    def work() -> None:
        for one, operator in zip(leases, operators):
            if operator is operators[0] and asleep:
                continue
            one.attempt()
            operator.work()

    asleep: list[bool] = []
    harness.work = work
    harness.until(lambda: harness.job("world-sft-a1"))
    assert leases[0].held() and not leases[1].held()
    assert not any(call.writes for call in apis[1].calls)
    asleep.append(True)
    harness.operator = operators[1]
    harness.until(lambda: leases[1].held())
    assert not leases[0].held(), "an operator that slept too long must not trust its lease"
    with pytest.raises(ApiError, match="another operator holds the lease"):
        lease.GatedApi(apis[0], leases[0]).call("DELETE", harness.job_path("world-sft-a1"))
    harness.run_to_the_end()
    assert set(harness.state()) == set(baseline("least").state)


# -- a stage that is deleted and created again


def test_the_job_of_a_deleted_stage_is_gone_before_the_next_stage_of_its_name_gets_one(kubeconfig):
    """The new stage's first attempt waits until the garbage collector has removed the old stage's second attempt."""
    harness = Harness(kubeconfig, "anew-1", **LEAST)
    VARIANTS["least"][1](harness)
    harness.scenario.outcome = lambda name: "Failed" if name.endswith("-a1") else ""
    harness.until(lambda: phase(harness.job("world-sft-a2") or {}) == "Running")
    without_owner = {"metadata": {"ownerReferences": None}}
    harness.edit(harness.job_path("world-sft-a2"), without_owner)
    harness.remove(harness.job_path("world-sft-a1"))
    harness.remove(paths.OURS["SFTStage"].path("anew-1", "world-sft"))
    for _ in range(20):
        if not harness.round():
            harness.clock.passed = max(harness.operator.wakes(), harness.clock.passed)
    assert harness.get("SFTStage", "world-sft")["status"]["attempt"] == 1 and harness.job("world-sft-a1") is None
    harness.remove(harness.job_path("world-sft-a2"))
    harness.until(lambda: harness.job("world-sft-a1"))
