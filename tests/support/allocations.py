"""How many bytes code allocates on a CPU, by the events of torch's own allocator."""

from __future__ import annotations

import gc

import torch


class Allocations:
    """Measures what is allocated inside its context, in kernels too.

    Attributes:
        peak: most bytes that were allocated at a time, beyond those at the beginning
    """

    peak = 0

    def __enter__(self) -> Allocations:
        gc.collect()  # what earlier code left in cycles must not be freed inside
        self._profile = torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
        )
        self._profile.__enter__()
        return self

    def __exit__(self, *arguments: object) -> None:
        self._profile.__exit__(*arguments)
        events = self._profile.profiler.kineto_results.events()
        changes = sorted((each.start_ns(), each.nbytes()) for each in events if each.name() == "[memory]")
        total = 0
        for _, change in changes:
            total += change
            self.peak = max(self.peak, total)
