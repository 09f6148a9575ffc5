"""The optimizer's step, its state after a resume, and where training stops."""

from __future__ import annotations

import pytest
import torch

from gog.errors import UserError
from gog.spec import OptimizerSettings
from gog_recipes.runtime import checkpoint, optimizer
from gog_recipes.runtime.ranks import SINGLE


def model_and_optimizer(device="cpu", **settings):
    model = torch.nn.Linear(4, 8, bias=False, device=device)
    return model, torch.optim.AdamW(model.parameters(), lr=1e-3, **settings)


STATE = {
    "weight|exp_avg": torch.zeros(8, 4),
    "weight|exp_avg_sq": torch.zeros(8, 4),
    "weight|step": torch.tensor(3.0),
}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"component": "torch.optim.AdamX"}, "AdamX"),
        ({"component": "torch.optim.SGD"}, "betas"),
        ({"betas": (0.9, 1.0)}, "beta"),
    ],
)
def test_an_optimizer_that_cannot_be_made_is_named_with_the_cause(settings, reason):
    with pytest.raises(UserError, match=rf"^optimizer: cannot make torch\.optim\.\w+: .*{reason}"):
        optimizer.build(OptimizerSettings.model_validate(settings), torch.nn.Linear(4, 8).parameters(), 1e-3)


def test_resumed_state_is_where_its_parameter_is():
    """`meta` stands for an accelerator: a step with state on another device raises there as well."""
    model, adamw = model_and_optimizer("meta")
    checkpoint._load_optimizer(model, adamw, [STATE])
    state = adamw.state[model.weight]
    assert {name: tensor.device.type for name, tensor in state.items()} == {
        "exp_avg": "meta",
        "exp_avg_sq": "meta",
        "step": "cpu",  # torch keeps it there unless the optimizer is fused or capturable
    }
    model.weight.grad = torch.empty_like(model.weight)
    adamw.step()


def test_the_step_of_an_optimizer_that_runs_on_the_device_is_there_too():
    model, adamw = model_and_optimizer("meta", capturable=True)
    checkpoint._load_optimizer(model, adamw, [STATE])
    assert adamw.state[model.weight]["step"].device.type == "meta"


def test_an_offloaded_state_is_on_the_cpu_before_the_first_step_after_a_resume():
    """`meta` stands for an accelerator, on which the state would need memory while the engine samples."""
    model, _ = model_and_optimizer("meta")
    adamw = optimizer.build(OptimizerSettings(), model.parameters(), 1e-3, "cpu")
    saved = STATE | {"weight|exp_avg": torch.ones(8, 4)}
    checkpoint._load_optimizer(model, adamw, [saved], "cpu")
    state = adamw.state[model.weight]
    assert {tensor.device.type for tensor in state.values()} == {"cpu"}
    assert torch.equal(state["exp_avg"], torch.ones(8, 4))
    model.weight.grad = torch.empty_like(model.weight)
    before = []
    adamw.register_step_pre_hook(lambda *_: before.append(state["exp_avg"].device.type))
    with pytest.raises(NotImplementedError, match="meta"):  # of the move back, because meta holds no numbers
        adamw.step()
    assert before == ["meta"]


def test_state_of_two_ranks_is_concatenated_in_rank_order():
    model, adamw = model_and_optimizer()
    halves = [{name: v if not v.dim() else v[:4] + rank for name, v in STATE.items()} for rank in range(2)]
    checkpoint._load_optimizer(model, adamw, halves)
    assert adamw.state[model.weight]["exp_avg"][:, 0].tolist() == [0.0] * 4 + [1.0] * 4


def test_an_offloaded_state_is_elsewhere_between_steps_and_where_its_parameter_is_in_a_step(monkeypatch):
    model = torch.nn.Linear(4, 8, bias=False)
    adamw = optimizer.build(OptimizerSettings(), model.parameters(), 1e-3, "cpu")
    moved = []
    monkeypatch.setattr(optimizer, "_move_state", lambda _, device: moved.append(device))
    adamw.register_step_pre_hook(lambda *_: moved.append("step"))
    step(model, adamw)
    assert moved == [None, "step", torch.device("cpu")]


def test_the_count_of_steps_stays_where_the_optimizer_keeps_it():
    """`meta` stands for another device."""
    model, adamw = model_and_optimizer()
    step(model, adamw)
    optimizer._move_state(adamw, torch.device("meta"))
    devices = {name: each.device.type for name, each in adamw.state[model.weight].items()}
    assert devices == {"exp_avg": "meta", "exp_avg_sq": "meta", "step": "cpu"}


def test_an_offloaded_state_changes_no_bit_of_a_step():
    found = []
    for offload in ("none", "cpu"):
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 8, bias=False)
        adamw = optimizer.build(OptimizerSettings(), model.parameters(), 1e-3, offload)
        for gradient in (1.0, -0.5):
            step(model, adamw, gradient=gradient)
        found.append(model.weight.detach().clone())
    assert torch.equal(*found)


def step(model, adamw, *, number=2, loss=1.0, grad_norm=1.0, gradient=1.0):
    model.weight.grad = torch.full_like(model.weight, gradient)
    optimizer.apply_step(adamw, model, SINGLE, step=number, loss=loss, grad_norm=grad_norm)


def test_a_finite_step_changes_the_weights_and_drops_the_gradients():
    model, adamw = model_and_optimizer()
    before = model.weight.detach().clone()
    step(model, adamw)
    assert model.weight.grad is None and not torch.equal(model.weight, before)


@pytest.mark.parametrize(
    ("figures", "what"),
    [({"loss": float("nan")}, "the loss is nan"), ({"grad_norm": float("inf")}, "the gradient's norm is inf")],
)
def test_a_step_that_is_not_finite_is_not_made(figures, what):
    model, adamw = model_and_optimizer()
    before = model.weight.detach().clone()
    with pytest.raises(UserError, match=rf"step 2: {what}.*learning_rate, 0.001 in this step, is probably too high"):
        step(model, adamw, **figures)
    assert torch.equal(model.weight, before)


def steps(count, rate):
    model, _ = model_and_optimizer()
    adamw = optimizer.build(OptimizerSettings(), model.parameters(), rate)
    for _ in range(count):
        step(model, adamw)


def test_weights_that_overflow_stop_the_training():
    with pytest.raises(UserError, match="step 2: the update left weights that are not finite"):
        steps(20, 3e37)


def test_a_rate_beyond_what_the_weights_can_hold_stops_the_training():
    with pytest.raises(UserError, match="step 2: value cannot be converted to type float without overflow"):
        steps(1, 1e39)


def test_in_the_first_step_the_learning_rate_is_not_to_blame():
    model, adamw = model_and_optimizer()
    with pytest.raises(UserError, match=r"step 1: the loss is nan.*check the base model's weights"):
        step(model, adamw, number=1, loss=float("nan"))
