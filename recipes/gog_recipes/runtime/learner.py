"""The update of GRPO: forward and backward passes over the trajectories of a step, and its optimizer steps.

A pass holds as many trajectories as its budget of tokens allows. Gradients add up over passes and ranks, so the budget
bounds memory and changes nothing else.

With `updates_per_rollout` above 1 the step's groups are divided among several optimizer steps (`minibatches`). The policy
before the first of them is what ratios, importance weights and the comparison with the engine refer to. Its log-probabilities
are read before it changes: of the first mini-batch in its own passes, of the others in passes without gradients.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch

from gog import exclusion
from gog.spec import GRPOConfig
from gog.trajectory import Segment, Trajectory
from gog_recipes import losses
from gog_recipes.models import checkpointing, lora, packing, policy_model
from gog_recipes.models.family import Processor
from gog_recipes.models.vision import Vision
from gog_recipes.runtime import flops, logprob_gap, minibatches, optimizer, parallel, timers, update_stats
from gog_recipes.runtime.ranks import Ranks
from gog_recipes.runtime.update_stats import Passed, UpdateStats

CPU_PASS_BYTES = 128 * 2**20
"""Activations up to which a pass on a CPU holds several groups. Larger ones gain nothing there, and cost page faults."""


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
        """The optimizer steps on the trajectories of all ranks that carry a signal; none without such.

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
        batches = self._mini_batches(rollout)
        if not batches:
            return UpdateStats()
        gaps: list[logprob_gap.TrajectoryGap] = []
        old: list[Sequence[torch.Tensor] | None] = [None]
        for batch in batches[1:]:
            old.append((yield from self._old_logprobs(batch, gaps, version)))
        done: list[tuple[Passed, float]] = []
        for batch, before in zip(batches, old, strict=True):
            passed = yield from self._gradients(batch, before, version)
            yield True
            gaps += passed.gaps
            if not done:  # of all mini-batches, before anything is learned
                logprob_gap.check(gaps, self.max_gap, step=step)
            norm = optimizer.clip_gradients(self.model, self.cfg.clip_grad_norm)
            optimizer.apply_step(
                self.optimizer, self.model, self.ranks, step=step, loss=passed.loss, grad_norm=norm,
                suspects=passed.suspects, changed=bool(done) or step > 1,
            )  # fmt: skip
            done.append((passed, norm))
        learned = sum(1 for item in rollout.trajectories if item.advantage)
        return UpdateStats.of(done, gaps, learned=learned, work=self._work(batches))

    def _work(self, batches: Sequence[minibatches.MiniBatch]) -> flops.Work:
        """What the passes with gradients of all ranks compute. All ranks at once."""
        passes = [each for batch in batches for each in batch.passes]
        own = flops.Work.total(
            [update_stats.NOTHING, *(flops.work([item.segments for item in each]) for each in passes)]
        )
        return flops.Work.total(self.ranks.gather(own))

    def _mini_batches(self, rollout: StepRollout) -> list[minibatches.MiniBatch]:
        """What each optimizer step learns from; none without a signal. All ranks at once, with as many for each of them."""
        found = []
        for indices in minibatches.divide(rollout.groups, self.cfg.updates_per_rollout):
            groups = [rollout.groups[index] for index in indices]
            names = {item.id for group in groups for item in group}
            own = [[item for item in group if item.id in names] for group in rollout.own]
            part = dataclasses.replace(rollout, groups=groups, own=own)
            learned = [item for group in own for item in group if item.advantage]
            found.append(minibatches.MiniBatch(self._passes(learned), self._counted(part)))
        return found

    def _counted(self, rollout: StepRollout) -> minibatches.Counted:
        """What the means over some groups of a step are taken over. All ranks at once."""
        tokens = sum(
            len(item.model_logprobs()) for group in rollout.own for item in group if item.advantage is not None
        )
        trajectories = sum(1 for item in rollout.trajectories if item.advantage is not None)
        return minibatches.Counted(trajectories, self.ranks.all_reduce_sum(tokens))

    def _old_logprobs(
        self, batch: minibatches.MiniBatch, gaps: list[logprob_gap.TrajectoryGap], version: int | None
    ) -> Generator[bool, None, list[torch.Tensor]]:
        """What the policy before a step's update makes of what a later optimizer step learns. Yields False after each pass.

        Args:
            batch: of the later optimizer step
            gaps: gets those of the trajectories of all ranks
            version: as for `updating`

        Returns:
            Log-probabilities [k] of each pass; those of an empty one stand for nothing.
        """
        found: list[torch.Tensor] = []
        own: list[logprob_gap.TrajectoryGap] = []
        for rows in batch.passes:
            with self._without_gradients():
                logp = self._policy(self._batch([item.segments for item in rows] or [self._idle]))
            found.append(logp)
            own += self._gaps(rows, logp, self._sampled(rows), version) if rows else []
            yield False
        gaps += [each for part in self.ranks.gather(own) for each in part]
        return found

    def _gradients(
        self, batch: minibatches.MiniBatch, old: Sequence[torch.Tensor] | None, version: int | None
    ) -> Generator[bool, None, Passed]:
        """Adds up the gradients of an optimizer step over passes and ranks. Yields False after each pass.

        Args:
            batch: of the optimizer step
            old: [k] log-probabilities of each pass by the policy before the update; None where that is the present one
            version: as for `updating`

        Returns:
            What the passes of all ranks found; gaps only where the present policy is that before the update.
        """
        found = Passed()
        for number, rows in enumerate(batch.passes):
            if not rows:
                (self._logprobs([self._idle])[0] * 0).sum().backward()
                yield False
                continue
            with self.timer.part("train"):
                part, logp, rollout_logp = self._loss(rows, batch.counted, old[number] if old else None)
                part.loss.backward()
            found.terms.append((dataclasses.replace(part, loss=part.loss.detach().cpu()), len(logp)))
            if old is None:
                found.gaps += self._gaps(rows, logp, rollout_logp, version)
            if not found.suspects:
                lengths = [len(item.model_logprobs()) for item in rows]
                names = [f"trajectory {item.id}" for item in rows]
                found.suspects = optimizer.at_fault(self.model, logp - rollout_logp, lengths, names)
            yield False
        return Passed.total(self.ranks.gather(found))

    def _gaps(
        self, rows: Sequence[Trajectory], logp: torch.Tensor, rollout_logp: torch.Tensor, version: int | None
    ) -> list[logprob_gap.TrajectoryGap]:
        """The gaps of the trajectories of a pass.

        Args:
            rows: t trajectories
            logp: [k] by the policy before the update
            rollout_logp: [k] those under which the tokens were sampled
            version: as for `updating`
        """
        lengths, ids = [len(item.model_logprobs()) for item in rows], [item.id for item in rows]
        fresh = None if version is None else [item.sampled_by(version) for item in rows]
        return logprob_gap.measure(logp, rollout_logp, lengths, ids, self.cfg.tis_cap, fresh=fresh)

    def _passes(self, learned: Sequence[Trajectory]) -> list[list[Trajectory]]:
        """The trajectories of each pass of this rank; empty where other ranks make more passes than it has work for."""
        rows = [item.segments for item in learned]
        passes = packing.passes(rows, self.cfg.micro_batch_tokens, self.together)
        return parallel.even([[learned[index] for index in members] for members in passes], self.ranks)

    def _logprobs(self, rows: Sequence[Sequence[Segment]]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Log-probabilities [k] of the learned tokens of some trajectories by the policy, and by the reference."""
        inputs = self._batch(rows)
        reference = None
        if self.loss_config.kl_coef:
            with self._without_gradients(), lora.reference(self.model):
                reference = self._policy(inputs)
        return self._policy(inputs), reference

    def _batch(self, rows: Sequence[Sequence[Segment]]) -> tuple[policy_model.Batch, torch.Tensor | None]:
        """Some trajectories as a pass reads them, and the features of their images. All ranks at once."""
        batch = policy_model.collate(rows, self.processor, self.vision, self.device)
        return batch, policy_model.features(batch, self.vision)

    def _policy(self, inputs: tuple[policy_model.Batch, torch.Tensor | None]) -> torch.Tensor:
        """Log-probabilities [k] of the learned tokens of a pass by the model as it is."""
        suppressed, temperature = self.processor.suppress_tokens, self.cfg.temperature
        return policy_model.token_logprobs(self.model, *inputs, suppressed=suppressed, temperature=temperature)

    @contextlib.contextmanager
    def _without_gradients(self) -> Iterator[None]:
        """A pass that only reads, whose time is a part of its own."""
        with self.timer.part("reference"), torch.no_grad():
            yield
            if self.device.type == "cuda":  # else its time would be that of the next part that waits for it
                torch.cuda.synchronize(self.device)

    @property
    def _idle(self) -> Sequence[Segment]:
        """What a rank reads in a pass for which it has nothing."""
        return packing.idle(self.processor.turn_end)

    def _sampled(self, rows: Sequence[Trajectory]) -> torch.Tensor:
        """[k] log-probabilities under which the learned tokens of some trajectories were sampled."""
        return torch.tensor([value for item in rows for value in item.model_logprobs()], device=self.device)

    def _loss(
        self, rows: Sequence[Trajectory], counted: minibatches.Counted, old: torch.Tensor | None
    ) -> tuple[losses.LossTerms, torch.Tensor, torch.Tensor]:
        """The loss of one pass.

        Args:
            rows: t trajectories
            counted: what the means of the optimizer step are taken over
            old: [k] log-probabilities by the policy before the update; None where that is the present one

        Returns:
            The loss; [k] log-probabilities by the present policy, without gradients; [k] those under which the tokens were
            sampled.
        """
        logp, reference = self._logprobs([item.segments for item in rows])
        rollout_logp = self._sampled(rows)
        old_logp = logp.detach() if old is None else old
        inputs = losses.LossInputs(
            logp=logp,
            old_logp=old_logp,
            reference_logp=reference,
            advantages=torch.tensor([item.advantage for item in rows], device=self.device),
            lengths=torch.tensor([len(item.model_logprobs()) for item in rows], device=self.device),
            trajectories=counted.trajectories,
            tokens=counted.tokens,
            weights=logprob_gap.importance_weights(old_logp, rollout_logp, self.cfg.tis_cap),
        )
        return self.loss(inputs, self.loss_config), logp.detach(), rollout_logp


def _cpu_tokens(model: torch.nn.Module) -> int:
    """Tokens of which autograd keeps CPU_PASS_BYTES."""
    return int(CPU_PASS_BYTES / checkpointing.kept_bytes(model))
