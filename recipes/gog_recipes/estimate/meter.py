"""Bytes that are allocated, by item, and their peaks: torch's memory tracker with the items of an estimate.

torch's tracker attributes memory to modules, each of which may be called once; the policy is called for policy,
reference and every pass. So its accounting of storages is used, and its hooks on modules are not.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator
from typing import Any, Self

import torch
from torch.distributed._tools import mem_tracker
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode


class Item(enum.StrEnum):
    """What memory is used for."""

    BASE = "base weights"
    ADAPTERS = "adapters"
    GATHERED = "gathered weights"
    COPIES = "engine's copies of weights"
    GRADIENTS = "gradients"
    OPTIMIZER = "optimizer state"
    ACTIVATIONS = "activations and workspace"
    LOGITS = "logits"
    FEATURES = "image features"
    CACHE = "key-value cache"
    HOST = "kept on the CPU"


Bytes = dict[Item, int]
"""Bytes by item."""
Moments = dict[str, Bytes]
"""The largest use of memory in the forward pass, in the backward pass and in the optimizer step, or in parts of these."""


WITH_A_COPY = (torch.ops.aten.logsumexp.default,)
"""Operations whose kernels hold a copy of their input, which no tracker of operations sees."""


class Meter(mem_tracker.MemTracker):
    """Counts what is allocated inside its context, which may be entered again.

    Args:
        vocabulary: size of the last dimension by which logits are recognised
        offloaded: whether shards of a model, their gradients and the optimizer's state are on the CPU
    """

    def __init__(self, vocabulary: int, *, offloaded: bool = False) -> None:
        super().__init__()
        self.offloaded = offloaded
        self._ref_class = tuple(Item)
        self.vocabulary = vocabulary
        self.peaks: Moments = {}
        self._part = ""
        self._label: Item | None = None

    def __enter__(self) -> Self:
        self._fake_mode_on_entry = None
        self._register_global_optimizer_hook()
        self._track_resize()
        TorchDispatchMode.__enter__(self)
        return self

    def __exit__(self, *args: Any) -> None:
        TorchDispatchMode.__exit__(self, *args)
        self._deregister_param_and_optimizer_hooks()
        self._restore_resize()

    def now(self) -> Bytes:
        """Bytes that are allocated at present."""
        snapshots = self.get_tracker_snapshot().values()
        return {item: sum(snapshot[item] for snapshot in snapshots) for item in Item}

    def restart(self) -> None:
        """Forgets the peaks."""
        self.peaks, self._part = {}, ""

    def begin(self, part: str) -> None:
        """Keeps the peaks of a part of the work by themselves: which part has the largest depends on the model's depth."""
        self._part = f"{part}: "

    @contextlib.contextmanager
    def label(self, item: Item) -> Iterator[None]:
        """Counts what is allocated inside the context as one item."""
        self._label = item
        try:
            yield
        finally:
            self._label = None

    def hold(self, tensor: torch.Tensor, item: Item) -> None:
        """Counts a tensor as an item, whether it is known already or not."""
        self._update_and_maybe_create_winfos(tensor, item)

    def hold_model(self, model: torch.nn.Module) -> None:
        """Counts the weights of a model as base weights and adapters."""
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            on_host = self.offloaded and isinstance(tensor, DTensor)
            self.hold(tensor, Item.HOST if on_host else Item.ADAPTERS if ".lora_" in name else Item.BASE)

    # ---------------------------------------------------------------- of torch's tracker

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default:
            return func(*args, **kwargs or {})
        if func in WITH_A_COPY:
            copy = super().__torch_dispatch__(torch.ops.aten.empty_like.default, types, (args[0],))
            del copy  # counted at its peak
        return super().__torch_dispatch__(func, types, args, kwargs)

    def _item(self, kind: Any, tensor: torch.Tensor) -> Any:
        if isinstance(kind, Item):
            return kind
        if self._label:
            return self._label
        if kind is mem_tracker._MemRefType.OPT:
            return Item.HOST if self.offloaded else Item.OPTIMIZER
        is_logits = tensor.dim() > 1 and tensor.shape[-1] == self.vocabulary
        return Item.LOGITS if is_logits else Item.ACTIVATIONS

    def _track(self, reftype: Any, t: torch.Tensor) -> None:
        super()._track(self._item(reftype, t), t)

    def _update_and_maybe_create_winfos(self, t: torch.Tensor, reftype: Any, update_existing: bool = False) -> Any:
        return super()._update_and_maybe_create_winfos(t, self._item(reftype, t), update_existing)

    def _track_resize(self) -> None:
        """FSDP2 frees and allocates the gathered weights of a layer by resizing their storages."""
        super()._track_resize()
        resize = torch.UntypedStorage.resize_

        def resize_(storage: torch.UntypedStorage, size: int) -> Any:
            known, _ = self._WINFO.get(storage, (None, None))
            if known is not None and known.reftype is not Item.GATHERED:
                known.reftype, old = Item.GATHERED, known.reftype
                self._update_snap(mem_tracker._UpdateType.REF, known, old_reftype=old)
            return resize(storage, size)

        torch.UntypedStorage.resize_ = resize_

    def _update_peak_stats(self, peak_state: Any) -> None:
        moment = "optimizer step" if self._in_opt else self._part + peak_state.value.removeprefix("Peak-").lower()
        for snapshot in self._curr_mem_snap.values():
            if snapshot["Total"] > sum(self.peaks.get(moment, {}).values()):
                self.peaks[moment] = {item: snapshot[item] for item in Item}
