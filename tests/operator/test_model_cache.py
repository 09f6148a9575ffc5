"""A run's sources are fetched once, into a claim, before its stages and servers, which then read the same commit."""

from __future__ import annotations

import support.operator_golden as golden
from support.operator_builders import NOW, READY_DATA, STORE, later
from support.run_plans import created

from gog_operator.api.meta import Reason
from gog_operator.api.objects import GoGRun
from gog_operator.api.records import Preparation
from gog_operator.build import fetch_job, pods
from gog_operator.build.platform import Platform
from gog_operator.plan import run as rule
from gog_operator.plan.actions import Blocked, FetchSources, SourcesView

HF = "hf://org/model"
VOLUME = "pvc://models/model-1"
DONE = SourcesView("done", {HF: VOLUME}, "hf://org/model@abc (15.2 GB)")


def made(**spec) -> GoGRun:
    body = {"model": {"base": HF, "secretName": "hub"}, "data": {"uri": "s3://pools/mine"}, "store": golden.STORE}
    body |= {"modelCache": {"claimName": "models"}, "checkTools": False, **spec}
    return golden.thing("GoGRun", "world", body)


def decide(run, view, now=NOW):
    facts = rule.Facts({}, {}, READY_DATA, STORE, is_persistent=True, sources=view)
    return rule.plan(run, facts, now)


def condition(decision, type_):
    return next(each for each in decision.status.conditions if each.type == type_)


def test_nothing_is_created_before_the_sources_are_fetched():
    decision = decide(made(), SourcesView("absent"))
    assert decision.actions == (FetchSources(),) and created(decision) == []
    assert condition(decision, "ModelFetched").reason == Reason.FETCHING
    assert decide(made(), SourcesView("fetching")).actions == ()


def test_progress_is_in_the_condition_and_looked_at_again():
    decision = decide(made(), SourcesView("fetching", message="fetching hf://org/model: 3.2 GB so far"))
    assert condition(decision, "ModelFetched").message.endswith("3.2 GB so far")
    assert decision.requeue_after == 5.0


def test_what_was_fetched_is_in_the_status_before_a_child_is_created():
    decision = decide(made(), DONE)
    assert dict(decision.status.sources) == {HF: VOLUME} and created(decision) == []
    assert condition(decision, "ModelFetched").status == "True" and decision.requeue_after == 0
    run = made().model_copy(update={"status": decision.status})
    children = created(decide(run, SourcesView("skipped")))
    assert children and all(dict(each.spec.sources) == {HF: VOLUME} for each in children)


def test_a_gated_model_ends_the_run_with_the_remedy():
    view = SourcesView("failed", message="hf://org/model: access to this model must be granted by its owner")
    failed = condition(decide(made(), view), "Failed")
    assert failed.reason == Reason.FETCH_FAILED and failed.message.startswith("spec.model: hf://org/model: access")


def test_a_gated_dataset_ends_the_run_with_its_own_field():
    view = SourcesView("failed", message="hf://datasets/org/pool: access to this dataset must be granted by its owner")
    failed = condition(decide(made(data={"uri": "hf://datasets/org/pool"}), view), "Failed")
    assert failed.reason == Reason.FETCH_FAILED and failed.message.startswith("spec.data.uri: hf://datasets/org/pool: ")


def test_an_outage_of_the_hub_is_reported_and_the_sources_are_fetched_again_later_and_later():
    down, run, delays = SourcesView("unavailable", message="hf://org/model: the Hub is down"), made(), []
    for _ in range(3):
        waits = decide(run, down)
        assert condition(waits, "ModelFetched").reason == condition(waits, "Ready").reason == Reason.FETCH_FAILED
        assert not [each for each in waits.status.conditions if each.type == "Failed"] and waits.actions == ()
        assert [(each.reason, each.warning) for each in waits.events] == [("FetchFailed", True)]
        delays.append(waits.requeue_after)
        run = run.model_copy(update={"status": waits.status})
        assert decide(run, down).events == () and decide(run, down).status == run.status
        assert decide(run, down, later(301)).actions == (FetchSources(),)
        run = run.model_copy(update={"status": decide(run, SourcesView("fetching"), later(301)).status})
    assert delays == [2.0, 4.0, 8.0]
    assert decide(run, DONE).status.preparation == Preparation()


def test_a_job_that_waits_for_its_claim_says_so():
    why = Blocked(Reason.SOURCE_UNAVAILABLE, "spec.modelCache.claimName: pvc://models: there is no claim")
    decision = decide(made(), SourcesView("fetching", blocked=why))
    assert condition(decision, "Ready").reason == condition(decision, "ModelFetched").reason == why.reason


def test_a_run_without_a_cache_and_sources_that_are_no_addresses_fetch_nothing():
    assert fetch_job.wanted(made(modelCache=None), Platform()) == {}
    assert fetch_job.wanted(made(model={"base": "tiny"}, data={"world": {}}), Platform()) == {}
    assert fetch_job.wanted(made(model={"base": "pvc://a/b"}, data={"uri": "oci://r/i"}), Platform()) == {}


def test_the_installation_s_claim_is_used_where_the_run_names_none():
    run = made(modelCache=None)
    assert fetch_job.wanted(run, Platform(model_cache="shared")) == {"base": HF, "data": "s3://pools/mine"}
    assert fetch_job.claim(run, Platform(model_cache="shared")) == "shared"
    assert fetch_job.claim(made(), Platform(model_cache="shared")) == "models"


def test_the_job_alone_has_the_token_and_writes_to_the_claim():
    configmap, job = fetch_job.job("world-fetch", made(), golden.PLATFORM)
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert {"secretRef": {"name": "hub"}} in container["envFrom"]
    data = {"uri": "hf://datasets/org/pool", "secretName": "pools"}
    assert fetch_job.wanted(made(data=data), golden.PLATFORM)["data"] == data["uri"]
    other = fetch_job.job("world-fetch", made(model={"base": "tiny"}, data=data), golden.PLATFORM)[1]
    assert {"secretRef": {"name": "pools"}} in other["spec"]["template"]["spec"]["containers"][0]["envFrom"]
    assert {"name": "cache", "persistentVolumeClaim": {"claimName": "models"}} in pod["volumes"]
    assert {"name": "cache", "mountPath": "/mnt/gog/cache"} in container["volumeMounts"]
    assert container["securityContext"] == pods.container_security()
    assert '"base": "hf://org/model"' in configmap["data"]["config.yaml"]
    assert job["spec"]["activeDeadlineSeconds"] == 86_400
