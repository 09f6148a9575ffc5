"""The sampling decoder of a policy that is sharded over two ranks."""

from __future__ import annotations

import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from support import ports

from gog.spec import LoraSettings, ModelSpec, Quantization
from gog_recipes.models import decoder_weights, lora, nf4, policy_model
from gog_recipes.models.decoder import Decoder, StepInputs
from gog_recipes.models.kv_cache import Row
from gog_recipes.runtime import parallel, ranks

pytestmark = pytest.mark.slow
CPU = torch.device("cpu")


def logits(decoder: Decoder) -> torch.Tensor:
    """[4, vocabulary] of two conversations, after a step that reads them and one that decodes."""
    decoder.make_cache(64, 2**24)
    rows = [Row([]), Row([])]
    for row in rows:
        assert decoder.cache.reserve(row.blocks, 8)
    at = torch.arange(5).expand(3, 2, 5).clone()
    first = decoder.step(StepInputs(rows, [0, 0], [5, 3], torch.arange(20, 30).view(2, 5), at, None, None))
    at = torch.tensor([5, 3])[None, :, None].expand(3, 2, 1).clone()
    second = decoder.step(StepInputs(rows, [5, 3], [1, 1], torch.tensor([[40], [41]]), at, None, None))
    return torch.cat((first, second))


def compare(rank: int, port: int, fused_bytes: int, quantization: Quantization) -> None:
    """In each rank: the sharded policy's logits equal those of the whole one, also after a rest."""
    torch.set_num_threads(1)
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank)
    )
    decoder_weights.FUSED_BYTES = fused_bytes
    both = ranks.init(CPU)
    torch.manual_seed(0)
    model = lora.add(policy_model.load_base(ModelSpec(base="tiny"), CPU, quantization), LoraSettings()).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    expected = logits(Decoder(model))
    parallel.shard(model, both)
    decoder = Decoder(model)
    assert decoder.sharded and torch.equal(logits(decoder), expected)
    if quantization == "nf4":  # the engine plays from the trainer's own weights
        owned = {each.codes.data_ptr() for each in model.modules() if isinstance(each, nf4.Linear)}
        assert {layer.out.weight.codes.data_ptr() for layer in decoder.layers} <= owned
    decoder.rest()
    assert not decoder.layers and not decoder.head.numel()
    decoder.refresh(model)
    assert torch.equal(logits(decoder), expected)
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("fused_bytes", "quantization"),
    [(0, "none"), (decoder_weights.FUSED_BYTES, "none"), (decoder_weights.FUSED_BYTES, "nf4")],
)
def test_a_sharded_policy_is_gathered_for_sampling_and_freed_at_rest(
    fused_bytes: int, quantization: Quantization
) -> None:
    mp.spawn(compare, (ports.free(1)[0], fused_bytes, quantization), nprocs=2)
