"""Model FLOPs of an update against counts by hand and by torch, and the peaks of devices."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support import learning
from torch.utils.flop_counter import FlopCounterMode, mm_flop

from gog.spec import ModelSpec
from gog.trajectory import Segment
from gog_recipes.models import packing, policy_model
from gog_recipes.runtime import flops, memory


def conversation(prompt: int, *turns: int, first: int = 1) -> list[Segment]:
    """A prompt of equal tokens, and turns of the model of these lengths."""
    turn = [Segment(source="model", tokens=(7,) * count, logprobs=(-1.0,) * count) for count in turns]
    return [Segment(source="prompt", tokens=(first,) * prompt), *turn]


def test_the_flops_of_a_lora_update_are_those_of_a_count_by_hand() -> None:
    # Two layers of 8 x 8 weights in four linears, adapters of rank 2 on each, a head of 100 x 8; 2 heads of size 4.
    frozen, trained, head, width = 2 * 4 * 64, 2 * 4 * (2 * 8 + 2 * 8), 800, 2 * 2 * 4
    done = flops.work([conversation(3, 2)])
    assert done == flops.Work(tokens=5, learned=2, pairs=1 + 2 + 3 + 4 + 5)
    expected = 5 * (4 * frozen + 6 * trained) + 2 * 4 * head + 15 * 12 * width
    assert flops.Model(frozen, trained, head, width).flops(done) == expected == 27_200


def test_utilisation_is_the_share_of_the_peak_and_absent_where_that_is_unknown() -> None:
    model, done = flops.Model(7_000_000_000, 0, 0, 0), flops.Work(tokens=10_000)
    found = flops.Utilisation(model, 989e12).figures(done, 2.0)
    assert found["model_flops_per_second"] == 140e12 and found["mfu"] == pytest.approx(0.14156, abs=1e-5)
    assert flops.Utilisation(model, None).figures(done, 2.0)["mfu"] is None
    assert flops.Utilisation(model, 989e12).figures(flops.Work(), 0.1) == {"model_flops_per_second": None, "mfu": None}


def test_a_shared_prompt_is_computed_once_and_seen_by_every_answer() -> None:
    rows = [conversation(4, 2), conversation(4, 3), conversation(4, 2, first=9)]
    seen = (
        10 + (2 * 4 + 3) + (3 * 4 + 6) + 21
    )  # the prompt, each answer with it, and the conversation of another prompt
    assert flops.work(rows) == flops.Work(tokens=4 + 2 + 3 + 6, learned=7, pairs=seen)
    assert flops.work(rows).tokens == packing.tokens(rows)


@pytest.fixture(scope="module")
def tiny() -> Any:
    spec = ModelSpec(base="tiny")
    policy, processor = learning.adapted(spec), policy_model.load_processor(spec)
    vision = policy_model.vision_of(policy, processor)
    return policy, processor, vision, [item.segments for item in learning.trajectories(processor, vision, (1, 3, 2))]


def added_product(into: Any, left: Any, right: Any, *_: Any, **__: Any) -> int:
    """Operations of addmm_, which torch leaves out, by the shapes of its arguments."""
    return mm_flop(left, right)


def test_torch_counts_the_same_products_in_an_update_of_the_tiny_model(tiny: Any) -> None:
    policy, processor, vision, rows = tiny
    batch = policy_model.collate(rows[:1], processor, vision, torch.device("cpu"))
    images = policy_model.features(batch, vision)
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: added_product}) as counter:
        policy_model.token_logprobs(policy, batch, images).sum().backward()
    policy.zero_grad(set_to_none=True)
    products = {"aten.mm", "aten.addmm", "aten.addmm_"}  # it counts no attention on a CPU
    counted = sum(count for name, count in counter.get_flop_counts()["Global"].items() if str(name) in products)
    done = flops.work(rows[:1])
    ours = flops.model_of(policy).flops(flops.Work(done.tokens, done.learned, 0))
    assert counted == pytest.approx(ours, rel=0.04)  # the first layer's input needs no gradient


@pytest.mark.parametrize(
    ("device", "peak"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA GeForce RTX 9999", None),
    ],
)
def test_the_peak_of_a_device_is_known_or_absent(device: str, peak: float | None) -> None:
    assert flops.peak_of(device) == peak


def test_the_peak_of_memory_is_that_of_the_largest_rank() -> None:
    assert memory.figures([(5, None), (7, None)]) == {"host_memory_peak_bytes": 7, "device_memory_peak_bytes": None}
    assert memory.figures([(5, 9), (7, 3)])["device_memory_peak_bytes"] == 9
    host, device = memory.take_peak(torch.device("cpu"))
    assert 10_000_000 < host < 10**13 and device is None
