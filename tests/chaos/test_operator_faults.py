"""Whatever happens between two calls of an operator, the end is the same: faults at every call, on a real API server.

A sample of the calls is in the suite; every one of them is `exhaustive`. The run that faults strike has
every kind of call: skipped stages are looked for, the dataset is made, a stage fails once and is tried again, the
policy is loaded and served, the report is written.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Iterable

import pytest
from support.fault_cases import ENDINGS, LEAST, MEDDLING, VARIANTS, Case, Outcome, play, play_all, players, wrong_with
from support.fault_harness import Life, Theatre, phase
from support.faulty_api import ANSWERS, FaultyApi, Turns, nothing

from gog_operator import lease
from gog_operator.cluster import paths
from gog_operator.cluster.kube import Api, ApiError

pytestmark = pytest.mark.apiserver

DEATHS = ("dies before", "dies after")
SEED = 4
FEW = 211
"""Between calls of the whole world's run at which it is tried: it makes some 1,600."""


@pytest.fixture(scope="module")
def kubeconfig(bare_api_server):
    return str(bare_api_server.kubeconfig)


@pytest.fixture(scope="module")
def sane(kubeconfig):
    """variant -> how its run goes without a fault."""

    @functools.cache
    def of(variant: str) -> Outcome:
        outcome = play(kubeconfig, f"sane-{variant}", Case(variant))
        assert not outcome.wrong
        assert outcome.state["gogruns.gog.dev/world"][0][0][0] == "Complete"
        return outcome

    return of


@pytest.fixture(scope="module")
def survives(kubeconfig, sane):
    """Plays cases, and fails with every one that does not end as it should."""
    prefixes = (f"case-{number}" for number in itertools.count())
    with players() as pool:

        def check(cases: Iterable[Case]) -> None:
            played = list(play_all(pool, kubeconfig, next(prefixes), cases))
            wrongs = [
                f"{each.case.fault} at call {each.case.call}, {each.struck}: {wrong}"
                for each in played
                if (wrong := wrong_with(each, sane(each.case.variant)))
            ]
            assert not wrongs, f"{len(wrongs)} of {len(played)}:\n" + "\n".join(wrongs)

        yield check


def calls(sane: Outcome) -> range:
    return range(1, len(sane.calls) + 1)


def writes(sane: Outcome) -> list[int]:
    """Numbers of the calls that change something."""
    return [number for number in calls(sane) if not sane.calls[number - 1].startswith("GET")]


def test_an_operator_that_dies_at_some_call_or_gets_a_bad_answer_ends_as_one_that_does_not(survives, sane):
    chance, run = random.Random(SEED), sane("least")
    faults = (*DEATHS, *ANSWERS, "every answer", "outage")
    survives(Case("least", fault, chance.choice(chance.choice((writes(run), calls(run))))) for fault in faults)


def test_what_others_delete_and_edit_costs_attempts_at_most(survives, sane):
    chance = random.Random(SEED)
    deeds = (*chance.sample(sorted(MEDDLING), 6), *ENDINGS)
    survives(Case("least", deed, chance.choice(calls(sane("least")))) for deed in deeds)


@pytest.mark.exhaustive
def test_an_operator_may_die_before_and_after_every_call_of_a_run(survives, sane):
    survives(Case("least", fault, call) for fault in DEATHS for call in calls(sane("least")))


@pytest.mark.exhaustive
def test_every_call_of_a_run_may_be_answered_in_every_bad_way(survives, sane):
    """Reads in one way after the other, until they are answered; writes also in each way alone."""
    survives(Case("least", "every answer", call) for call in calls(sane("least")))
    survives(Case("least", answer, call) for answer in ANSWERS for call in writes(sane("least")))


@pytest.mark.exhaustive
def test_others_may_delete_and_edit_at_every_step(survives, sane):
    """Each deed at every third write, beginning with another one."""
    run = writes(sane("least"))
    faults = (*MEDDLING, *ENDINGS, "outage")
    survives(Case("least", fault, call) for number, fault in enumerate(faults) for call in run[number % 3 :: 3])


@pytest.mark.exhaustive
def test_the_whole_world_survives_faults_at_calls_all_over_its_run(survives, sane):
    faults = ("dies before", "500 after all", "outage")
    survives(Case("world", fault, call) for fault in faults for call in calls(sane("world"))[::FEW])


# -- two operators


class Turnwise:
    """An Api that lets the other operator go first, now and then."""

    def __init__(self, api: Api, turns: Turns, me: int) -> None:
        self.api, self.turns, self.me = api, turns, me

    def call(self, method, path, **more):
        self.turns.step(self.me)
        return self.api.call(method, path, **more)


class Pair(Theatre):
    """Two operators on one run. wrap: (API, which of them) -> the API that it sees."""

    def __init__(self, kubeconfig, namespace, seed, wrap=lambda api, which, clock: api):
        self.turns, self.other = Turns(random.Random(seed), 2), None
        super().__init__(kubeconfig, namespace, **LEAST)
        VARIANTS["least"][1](self)
        first, second = (Turnwise(wrap(self.faulty, which, self.clock), self.turns, which) for which in (0, 1))
        self.life = Life(first, self.namespace, self.clock)
        self.other = Life(second, self.namespace, self.clock)
        self.witness.listeners.append(self.other.hears)

    def work(self):
        self.turns.play([self.life.work, self.other.work])


@pytest.mark.parametrize("seed", range(4))
def test_two_operators_at_once_come_to_the_same_end_as_one(kubeconfig, sane, seed):
    pair = Pair(kubeconfig, f"pair-{seed}", seed)
    pair.to_the_end()
    assert set(pair.state()) == set(sane("least").state)
    assert pair.get("SFTStage", "world-sft")["status"]["attempt"] == 2
    assert pair.get("SFTStage", "world-sft")["status"]["failures"] == 1
    assert len(pair.faulty.calls) < 3 * len(sane("least").calls)


def test_of_two_operators_only_the_one_that_holds_the_lease_writes(kubeconfig, sane):
    theatre = Theatre(kubeconfig, "lease-1", **LEAST)
    VARIANTS["least"][1](theatre)
    apis = [FaultyApi(theatre.witness, nothing) for _ in range(2)]
    leases = [
        lease.Lease(theatre.api, "lease-1", "gog-operator", f"operator-{number}", theatre.clock.seconds)
        for number in range(2)
    ]
    lives = [Life(lease.Gated(api, one), "lease-1", theatre.clock) for api, one in zip(apis, leases)]
    theatre.life = lives[0]
    theatre.witness.listeners.append(lives[1].hears)

    def work() -> None:
        for one, life in zip(leases, lives):
            if life is lives[0] and asleep:
                continue
            one.attempt()
            life.work()

    asleep: list[bool] = []
    theatre.work = work
    theatre.until(lambda: theatre.job("world-sft-a1"))
    assert leases[0].held() and not leases[1].held()
    assert all(call.startswith("GET") for call in apis[1].calls)
    asleep.append(True)
    theatre.life = lives[1]
    theatre.until(lambda: leases[1].held())
    assert not leases[0].held(), "who sleeps too long does not trust its lease any more"
    with pytest.raises(ApiError, match="another operator holds the lease"):
        lease.Gated(apis[0], leases[0]).call("DELETE", paths.VOLCANO_JOBS.path("lease-1", "world-sft-a1"))
    theatre.to_the_end()
    assert set(theatre.state()) == set(sane("least").state)


# -- a stage that is deleted and made anew


def test_a_deleted_stages_job_is_gone_before_the_next_stage_of_its_name_has_one(kubeconfig):
    """The garbage collector has not come round to the second attempt yet; the new stage's first one waits for that."""
    theatre = Theatre(kubeconfig, "anew-1", **LEAST)
    VARIANTS["least"][1](theatre)
    theatre.play.outcome = lambda name: "Failed" if name.endswith("-a1") else ""
    theatre.until(lambda: phase(theatre.job("world-sft-a2") or {}) == "Running")
    overlooked = {"metadata": {"ownerReferences": None}}
    theatre.edit(paths.VOLCANO_JOBS.path("anew-1", "world-sft-a2"), overlooked)
    theatre.remove(paths.VOLCANO_JOBS.path("anew-1", "world-sft-a1"))
    theatre.remove(paths.OURS["SFTStage"].path("anew-1", "world-sft"))
    for _ in range(20):
        if not theatre.round():
            theatre.clock.passed = max(theatre.life.wakes(), theatre.clock.passed)
    assert theatre.get("SFTStage", "world-sft")["status"]["attempt"] == 1 and theatre.job("world-sft-a1") is None
    theatre.remove(paths.VOLCANO_JOBS.path("anew-1", "world-sft-a2"))
    theatre.until(lambda: theatre.job("world-sft-a1"))
