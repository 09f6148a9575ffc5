"""The image of a stage and of a server: chosen once, resolved by what nodes report, kept across operator upgrades."""

from __future__ import annotations

from dataclasses import replace

import pytest
import support.operator_golden as golden
from support.operator_builders import LAUNCHER, NOW, READY_DATA, later, make_run, make_stage, make_tool_server

from gog_operator.api import names
from gog_operator.api.meta import FOLLOW, ImageStatus
from gog_operator.build import inference, volcano
from gog_operator.build.platform import Platform
from gog_operator.plan import images, stage, tool_server
from gog_operator.plan.actions import CreateJob, JobView, ServerView, StoreView

TAG = LAUNCHER.image
DIGEST = f"registry.example/gog-trainer@sha256:{'a' * 64}"
OTHER = f"registry.example/gog-trainer@sha256:{'b' * 64}"
LOADED = f"sha256:{'c' * 64}"
"""Id of an image that was loaded into a node and not pulled."""
UPGRADED = replace(LAUNCHER, image="registry.example/gog-trainer:2")
FAILED = JobView("failed", 1, ("why",))


def decide(thing, *, job=None, launcher=LAUNCHER, now=NOW):
    facts = stage.Facts(job, StoreView("known"), None, READY_DATA, launcher=launcher)
    decision = stage.plan(thing, facts, now)
    return thing.model_copy(update={"status": decision.status}), decision


def trained(ids, *, annotations=None):
    """A stage whose first attempt ran with images of these ids, and failed."""
    thing, _ = decide(make_stage(annotations=annotations))
    thing, _ = decide(thing)
    thing, _ = decide(thing, job=JobView("running", images=ids, pods=("pod-0",)))
    return decide(thing, job=replace(FAILED, images=ids))[0]


def next_attempt(thing, launcher):
    return decide(thing, job=FAILED, launcher=launcher, now=later(60))[0]


def test_an_attempt_s_image_and_job_are_written_before_the_job_is_created():
    numbered, first = decide(make_stage())
    assert first.actions == () and numbered.status.image == ImageStatus(reference=TAG)
    assert numbered.status.job_ref.kind == "Job" and numbered.status.job_ref.name == numbered.job_name
    _, second = decide(numbered, launcher=UPGRADED)
    assert isinstance(second.actions[0], CreateJob)
    assert volcano.job(numbered, Platform(trainer_image=UPGRADED.image)) == volcano.job(numbered, Platform()), (
        "an operator that was upgraded in between creates the same job"
    )


def test_what_the_nodes_report_is_in_the_status():
    thing = trained((DIGEST,))
    assert (thing.status.image.reference, thing.status.image.id, thing.status.pods) == (TAG, DIGEST, ("pod-0",))
    assert (thing.condition("ImagePinned").status, thing.condition("ImagePinned").message) == ("True", DIGEST)


@pytest.mark.parametrize("prefix", ["", "docker-pullable://"])
def test_the_next_attempt_uses_the_digest_whatever_the_operator_s_default_is_now(prefix):
    retried = next_attempt(trained((prefix + DIGEST,)), UPGRADED)
    assert retried.status.attempt == 2
    assert retried.status.image == ImageStatus(reference=DIGEST), "its own pods have not reported yet"


def test_a_stage_that_follows_upgrades_takes_the_new_default():
    retried = next_attempt(trained((DIGEST,), annotations={FOLLOW: "true"}), UPGRADED)
    assert retried.status.image.reference == UPGRADED.image


def test_an_image_without_a_digest_is_a_condition_with_a_remedy_and_no_failure():
    thing = trained((LOADED,))
    pinned = thing.condition("ImagePinned")
    assert (pinned.status, pinned.reason) == ("False", "ImageUnresolved")
    assert "push the image to a registry" in pinned.message and "sha256:cccccccccccc," in pinned.message
    assert thing.status.failures == 1, "only its exit code counts"
    assert next_attempt(thing, UPGRADED).status.image.reference == TAG


def test_pods_with_different_images_are_reported():
    thing = trained((DIGEST, OTHER))
    pinned = thing.condition("ImagePinned")
    assert (pinned.status, pinned.reason) == ("False", "ImagesDiffer")
    assert DIGEST in pinned.message and OTHER in pinned.message
    assert next_attempt(thing, UPGRADED).status.image.reference == TAG


def test_on_one_machine_there_is_no_image_and_a_plain_job_name():
    numbered, _ = decide(make_stage(), launcher=None)
    assert numbered.status.image == ImageStatus() and numbered.status.job_ref is None
    assert numbered.job_name == "world-stage-a1" and numbered.condition("ImagePinned") is None


def test_a_status_of_an_older_operator_keeps_the_name_of_its_job():
    thing = make_stage(status={"attempt": 2, "observed_attempt": 2})
    running, decision = decide(thing, job=JobView("running"))
    assert running.job_name == "world-stage-a2" and decision.actions == ()


def test_a_stage_that_is_created_again_has_other_job_names():
    first, again = names.job("world-sft", 1, "uid-1"), names.job("world-sft", 1, "uid-2")
    assert first != again and first == names.job("world-sft", 1, "uid-1")
    assert len(names.job("s" * 42, 9999, "uid") + "-trainer-9999-0") <= 63


def test_a_run_says_what_each_of_its_stages_was_trained_with():
    run = make_run()
    first = images.of_run(run, [trained((DIGEST,))])
    assert first == {"sft": DIGEST}
    kept = run.model_copy(update={"status": run.status.model_copy(update={"images": first})})
    assert images.of_run(kept, []) == first, "also once the stage has been deleted"


def server(**more):
    return ServerView("ready", url="http://s", image=TAG, **more)


def test_a_server_s_image_is_resolved_once_and_anew_for_another_image():
    facts = tool_server.Facts(server(images=(DIGEST,)), READY_DATA)
    made = make_tool_server()
    first = made.model_copy(update={"status": tool_server.plan(made, facts, NOW).status})
    assert first.status.image == ImageStatus(reference=TAG, id=DIGEST)
    again = tool_server.plan(first, tool_server.Facts(server(), READY_DATA), later(5))
    assert again.status == first.status
    changed = replace(server(), image=UPGRADED.image)
    assert tool_server.plan(first, tool_server.Facts(changed, READY_DATA), later(5)).status.image.id == ""


def test_pods_that_a_server_gets_after_its_tag_has_moved_are_reported():
    """A server that is scaled, restarted or moved to another node pulls the tag again."""
    thing = make_tool_server(replicas=2)
    for ids, image_id, pinned in (
        ((DIGEST,), DIGEST, "Pinned"),
        ((DIGEST, OTHER), f"{DIGEST}, {OTHER}", "ImagesDiffer"),
        ((OTHER,), OTHER, "Pinned"),
        ((), OTHER, "Pinned"),
    ):
        decision = tool_server.plan(thing, tool_server.Facts(server(images=ids), READY_DATA), NOW)
        thing = thing.model_copy(update={"status": decision.status})
        assert (thing.status.image.id, thing.condition("ImagePinned").reason) == (image_id, pinned)


def made(platform, *, annotations=None, **spec):
    thing = golden.tool_server("grounding", **spec)
    metadata = thing.metadata.model_copy(update={"annotations": annotations or {}})
    return inference.service(thing.model_copy(update={"metadata": metadata}), platform, golden.DATA)


UPGRADE = replace(golden.PLATFORM, tools_image="gog-tools:0.2.0", user=12345)


def test_an_operator_upgrade_restarts_no_live_server():
    live = made(golden.PLATFORM)
    assert inference.current(live, made(UPGRADE)) and inference.same_pods(live, made(UPGRADE))


def test_a_server_that_follows_upgrades_restarts_with_the_new_image():
    live = made(golden.PLATFORM, annotations={FOLLOW: "yes"})
    assert inference.current(live, made(golden.PLATFORM, annotations={FOLLOW: "yes"}))
    assert not inference.current(live, made(UPGRADE, annotations={FOLLOW: "yes"}))


def test_to_scale_a_server_after_an_upgrade_leaves_its_pods_as_they_are():
    live, wanted = made(golden.PLATFORM), made(UPGRADE, replicas=3)
    assert inference.same_pods(live, wanted) and not inference.current(live, wanted)
    patch = inference.scaled(wanted)
    assert patch["spec"] == {"predictor": {"minReplicas": 3}}


def test_a_changed_setting_of_a_server_takes_the_operator_s_image_of_the_day():
    live, wanted = made(golden.PLATFORM), made(UPGRADE, options={"shards": 2})
    assert not inference.same_pods(live, wanted) and inference.live_image(wanted) == "gog-tools:0.2.0"
