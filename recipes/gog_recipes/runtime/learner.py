"""The update of GRPO: forward and backward passes over the trajectories of a step, and one optimizer step.

A pass holds as many trajectories as its budget of tokens allows. Gradients add up over passes and ranks, so the budget
bounds memory and changes nothing else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch

from gog import exclusion, stats
from gog.spec import GRPOConfig
from gog.trajectory import Segment, Trajectory
from gog_recipes import losses
from gog_recipes.models import checkpointing, lora, packing, policy_model
from gog_recipes.models.family import Processor
from gog_recipes.models.vision import Vision
from gog_recipes.runtime import flops, logprob_gap, optimizer, parallel, timers
from gog_recipes.runtime.ranks import Ranks

CPU_PASS_BYTES = 128 * 2**20
"""Activations up to which a pass on a CPU holds several groups. Larger ones gain nothing there, and cost page faults."""
NOTHING = flops.Work()


@dataclass(frozen=True)
class UpdateStats:
    """Figures of an optimizer step, over all ranks; None where no group had a signal, so that none was made."""

    kl: float | None = None
    """KL to the reference in nats, mean over tokens."""
    clip_frac: float | None = None
    """Share of tokens for which the clipped ratio was taken."""
    gap: logprob_gap.GapStats | None = None
    """How far the trainer is from the engine that sampled the step."""
    grad_norm: float | None = None
    """Norm of the gradient before clipping."""
    loss: float | None = None
    """Of the whole step."""
    learned: int = 0
    """Trajectories that carried a signal."""
    work: flops.Work = NOTHING
    """What its passes computed; the reference not included."""

    @property
    def tokens(self) -> int:
        """Tokens that were read, observations included; a prompt once for all trajectories of a pass that share it."""
        return self.work.tokens


@dataclass(frozen=True)
class StepRollout:
    """The groups of a step, with advantages; alike on all ranks, apart from which trajectories are whole and from `own`."""

    groups: list[list[Trajectory]]
    """One group per question that could be played; those of other ranks are outlines (`gog.trajectory.outline`)."""
    own: list[list[Trajectory]]
    """The groups that this rank played, from which it learns."""
    exclusions: exclusion.Exclusions
    """What failures cost it."""
    skipped: int
    """Questions that could not be played."""
    replaced: list[list[Trajectory]] = dataclasses.field(default_factory=list)
    """Groups without a signal in whose place further questions were played; they are counted in `exclusions`."""
    missing: int = 0
    """Groups with a signal that the refill was to find and did not."""

    @property
    def trajectories(self) -> list[Trajectory]:
        """Those of all groups, in order."""
        return [item for group in self.groups for item in group]

    @property
    def played(self) -> list[Trajectory]:
        """Those of all groups that were played, replaced ones included."""
        return [*self.trajectories, *(item for group in self.replaced for item in group)]


@dataclass(frozen=True)
class Counted:
    """What a step's means are taken over, on all ranks: trajectories without a signal included, excluded ones not."""

    trajectories: int
    """Trajectories."""
    tokens: int
    """Their learned tokens."""


class Learner:
    """Makes the optimizer steps of GRPO.

    Args:
        cfg: settings of the loss, temperature of sampling and the limit of gradients
        loss: of each pass
        model: the policy with the adapter that is trained
        processor: of the base model
        vision: features of the images that trajectories show
        optimizer: over the trained parameters of `model`
        ranks: among which the trajectories of a step are divided
        timer: of the step, to which passes of the reference are reported
        together: tokens up to which a pass holds several groups; by default as many as the device gains from
    """

    def __init__(
        self,
        cfg: GRPOConfig,
        loss: losses.Loss,
        model: torch.nn.Module,
        processor: Processor,
        vision: Vision,
        optimizer: torch.optim.Optimizer,
        ranks: Ranks,
        timer: timers.StepTimer | None = None,
        together: int | None = None,
    ) -> None:
        self.cfg, self.loss, self.model = cfg, loss, model
        self.timer = timer or timers.StepTimer()
        self.loss_config = loss.config(cfg)
        self.processor, self.vision = processor, vision
        self.optimizer, self.ranks = optimizer, ranks
        self.device = policy_model.device_of(model)
        self.together = cfg.micro_batch_tokens if self.device.type != "cpu" else _cpu_tokens(model)
        if together is not None:
            self.together = together
        self.max_gap = cfg.max_logprob_gap or logprob_gap.BOUNDS[next(model.parameters()).dtype]

    def update(self, rollout: StepRollout, *, step: int) -> UpdateStats:
        """One optimizer step on the trajectories of all ranks that carry a signal; none without such.

        Args:
            rollout: the step's trajectories, with advantages, sampled from the present weights
            step: the step's number, counted from 1, for messages

        Raises:
            UserError: for a loss, gradient or weight that is not finite, and where engine and trainer differ by more than
                `max_logprob_gap`.
        """
        updating = self.updating(rollout, step=step)
        while True:
            try:
                next(updating)
            except StopIteration as ended:
                return cast(UpdateStats, ended.value)

    def updating(
        self, rollout: StepRollout, *, step: int, version: int | None = None
    ) -> Generator[bool, None, UpdateStats]:
        """`update` in parts, between which others may compute.

        Args:
            rollout: the step's trajectories, with advantages
            step: as for `update`
            version: of the present weights, where other versions may have sampled some of the tokens; these are not
                compared with the trainer

        Yields:
            After each pass whether the weights change next.
        """
        counted = self._counted(rollout)
        learned = [item for item in rollout.trajectories if item.advantage]
        if not learned:
            return UpdateStats()
        own = [item for group in rollout.own for item in group if item.advantage]
        passes = self._passes(own)
        terms, gaps, suspects = yield from self._gradients(passes, counted, version)
        yield True
        logprob_gap.check(gaps, self.max_gap, step=step)
        norm = optimizer.clip_gradients(self.model, self.cfg.clip_grad_norm)
        loss = sum(float(part.loss) for part, _ in terms)
        optimizer.apply_step(
            self.optimizer, self.model, self.ranks, step=step, loss=loss, grad_norm=norm, suspects=suspects
        )
        weights = [tokens for _, tokens in terms]
        return UpdateStats(
            kl=stats.weighted_mean([part.kl for part, _ in terms], weights),
            clip_frac=stats.weighted_mean([part.clip_frac for part, _ in terms], weights),
            gap=logprob_gap.total(gaps),
            grad_norm=norm,
            loss=loss,
            learned=len(learned),
            work=flops.Work.total(
                self.ranks.gather(
                    flops.Work.total([NOTHING, *(flops.work([item.segments for item in each]) for each in passes)])
                )
            ),
        )

    def _counted(self, rollout: StepRollout) -> Counted:
        """What the step's means are taken over. All ranks at once."""
        tokens = sum(
            len(item.model_logprobs()) for group in rollout.own for item in group if item.advantage is not None
        )
        trajectories = sum(1 for item in rollout.trajectories if item.advantage is not None)
        return Counted(trajectories, self.ranks.all_reduce_sum(tokens))

    def _gradients(
        self, passes: Sequence[Sequence[Trajectory]], counted: Counted, version: int | None
    ) -> Generator[bool, None, tuple[list[tuple[losses.LossTerms, int]], list[logprob_gap.TrajectoryGap], list[str]]]:
        """Adds up the gradients of the step over passes and ranks. Yields False after each pass.

        Args:
            passes: this rank's trajectories that carry a signal, by pass; an empty one takes part in that of other ranks
            counted: what the step's means are taken over
            version: as for `updating`

        Returns:
            Terms of every pass of every rank with its learned tokens, the gap of every trajectory, and the trajectories
            at fault where a number is not finite.
        """
        terms: list[tuple[losses.LossTerms, int]] = []
        gaps: list[logprob_gap.TrajectoryGap] = []
        suspects: list[str] = []
        for rows in passes:
            if not rows:
                (self._logprobs([packing.idle(self.processor.turn_end)])[0] * 0).sum().backward()
                yield False
                continue
            with self.timer.part("train"):
                part, logp, rollout_logp = self._loss(rows, counted)
                part.loss.backward()
            terms.append((dataclasses.replace(part, loss=part.loss.detach().cpu()), len(logp)))
            lengths, ids = [len(item.model_logprobs()) for item in rows], [item.id for item in rows]
            fresh = None if version is None else [item.sampled_by(version) for item in rows]
            gaps += logprob_gap.measure(logp, rollout_logp, lengths, ids, self.cfg.tis_cap, fresh=fresh)
            if not suspects:
                names = [f"trajectory {name}" for name in ids]
                suspects = optimizer.at_fault(self.model, logp - rollout_logp, lengths, names)
            yield False
        gathered = self.ranks.gather((terms, gaps, suspects))
        return (
            [each for part, _, _ in gathered for each in part],
            [each for _, part, _ in gathered for each in part],
            [each for _, _, part in gathered for each in part],
        )

    def _passes(self, learned: Sequence[Trajectory]) -> list[list[Trajectory]]:
        """The trajectories of each pass of this rank; empty where other ranks make more passes than it has work for."""
        rows = [item.segments for item in learned]
        passes = packing.passes(rows, self.cfg.micro_batch_tokens, self.together)
        return parallel.even([[learned[index] for index in members] for members in passes], self.ranks)

    def _logprobs(self, rows: Sequence[Sequence[Segment]]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Log-probabilities [k] of the learned tokens of some trajectories by the policy, and by the reference."""
        batch = policy_model.collate(rows, self.processor, self.vision, self.device)
        images = policy_model.features(batch, self.vision)
        settings: dict[str, Any] = {
            "suppressed": self.processor.suppress_tokens,
            "temperature": self.cfg.temperature,
        }
        reference = None
        if self.loss_config.kl_coef:
            with self.timer.part("reference"), lora.reference(self.model):
                reference = policy_model.token_logprobs(self.model, batch, images, **settings)
                if self.device.type == "cuda":  # else its time would be that of the next part that waits for it
                    torch.cuda.synchronize(self.device)
        return policy_model.token_logprobs(self.model, batch, images, **settings), reference

    def _loss(
        self, rows: Sequence[Trajectory], counted: Counted
    ) -> tuple[losses.LossTerms, torch.Tensor, torch.Tensor]:
        """The loss of one pass.

        Args:
            rows: t trajectories
            counted: what the step's means are taken over

        Returns:
            The loss; [k] log-probabilities by the policy; [k] those under which the tokens were sampled.
        """
        logp, reference = self._logprobs([item.segments for item in rows])
        sampled = [item.model_logprobs() for item in rows]
        rollout_logp = torch.tensor([value for values in sampled for value in values], device=self.device)
        old_logp = logp.detach()  # a rollout is learned in one update, so the policy before it is the present one
        inputs = losses.LossInputs(
            logp=logp,
            old_logp=old_logp,
            reference_logp=reference,
            advantages=torch.tensor([item.advantage for item in rows], device=self.device),
            lengths=torch.tensor([len(values) for values in sampled], device=self.device),
            trajectories=counted.trajectories,
            tokens=counted.tokens,
            weights=logprob_gap.importance_weights(old_logp, rollout_logp, self.cfg.tis_cap),
        )
        return self.loss(inputs, self.loss_config), old_logp, rollout_logp


def _cpu_tokens(model: torch.nn.Module) -> int:
    """Tokens of which autograd keeps CPU_PASS_BYTES."""
    return int(CPU_PASS_BYTES / checkpointing.kept_bytes(model))
