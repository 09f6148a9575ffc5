"""Whether a vLLM server can be a run's policy, found out before the first turn.

Each check has its own remedy, because a server that lacks an option works for everything else: it would sample from
other tokens or weights, or report other log-probs, without an error.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from gog.engine import Limits
from gog.errors import UserError
from gog.tool_types import CallError, FailureKind
from gog_recipes.models.family import Processor
from gog_recipes.rollout import vllm_request as requests
from gog_recipes.rollout.vllm_replica import DIED, MODELS, NO_ROUTE, UNLOAD, WHERE, Replica

VERSION = "0.32"
"""Version of vLLM that this was tested with."""
TEXT = "<think>Größe: 3.5 km²; 你好</think><answer>\n  two words</answer><|im_end|>"
"""Compared token by token: tags, special tokens, white space, letters outside ASCII."""


async def check(
    replica: Replica, processor: Processor, limits: Limits, *, adapters: bool, experts: bool = False
) -> None:
    """Checks a server, and notes the name under which it serves the base model.

    Args:
        replica: the server.
        processor: of the run's base model.
        limits: tokens and temperature of conversations.
        adapters: whether adapters will be loaded.
        experts: whether they change experts.

    Raises:
        CallError: a transient failure.
        UserError: the server lacks an option, serves another model, or cannot apply adapters to experts.
    """
    if limits.temperature > requests.MAX_TEMPERATURE:
        highest = f"{requests.MAX_TEMPERATURE:g}"
        raise UserError(
            f"vLLM samples at temperatures up to {highest}",
            where="temperature",
            remedy=f"lower it to at most {highest}",
        )
    replica.base = _base(await _get(replica, MODELS), replica, limits)
    await _check_tokenizer(replica, processor)
    await _check_endpoint(replica, processor, experts)
    if adapters:
        await _check_adapters(replica)


def _base(document: object, replica: Replica, limits: Limits) -> str:
    """Name of the base model, which is the first one; adapters have a parent."""
    try:
        [first, *_] = [each for each in document["data"] if not each.get("parent")]  # type: ignore[index]
        name, length = str(first["id"]), int(first["max_model_len"])
    except (KeyError, TypeError, ValueError):
        raise _other_server(replica) from None
    if length < limits.tokens:
        raise UserError(
            f"{replica.url} takes conversations of up to {length} tokens, the stage's have up to {limits.tokens}",
            where=WHERE,
            remedy=f"start vLLM with --max-model-len {limits.tokens}, or lower max_tokens",
        )
    return name


def _other_server(replica: Replica) -> UserError:
    return UserError(
        f"{replica.url} does not answer as vLLM does", where=WHERE, remedy=f"give the base URL of a vLLM {VERSION}"
    )


async def _get(replica: Replica, path: str) -> object:
    try:
        return await replica.get(path)
    except CallError as error:
        if "HTTP 401" in error.message or "HTTP 403" in error.message:
            raise UserError(f"{replica.url}: {error.message}", where=WHERE, remedy="set POLICY_GOG_API_KEY") from None
        if error.kind in (FailureKind.REFUSED, FailureKind.MALFORMED):
            raise _other_server(replica) from None
        raise


async def _check_tokenizer(replica: Replica, processor: Processor) -> None:
    try:
        answer = await replica.post("/tokenize", model=replica.base, prompt=TEXT, add_special_tokens=False)
    except CallError as error:
        if error.message == NO_ROUTE:
            return  # the probe of the weights notices another tokenizer, too
        raise
    theirs, ours = _tokens(answer), processor.encode(TEXT, [])
    if theirs != ours:
        raise UserError(
            f"the tokenizer of {replica.url} is another than that of model.base",
            where=WHERE,
            remedy="serve the base model of the run",
        )


def _tokens(answer: bytes) -> list[int]:
    try:
        return list(map(int, json.loads(answer)["tokens"]))
    except (ValueError, KeyError, TypeError) as error:
        raise CallError(FailureKind.MALFORMED, f"/tokenize: {error!r}") from None


async def _check_endpoint(replica: Replica, processor: Processor, experts: bool) -> None:
    """The endpoint exists, and log-probs are of the distribution that was sampled from: of a single allowed token it is
    0, of the model's own something below."""
    ids = processor.encode("a b", [])
    parameters = {"temperature": 1.0, "max_tokens": 1, "logprobs": 0, "allowed_token_ids": [processor.turn_end]}
    request = requests.body(replica.base, requests.Prompt(ids, ids, []), [], parameters)
    try:
        answer = requests.read(await replica.send(requests.GENERATE, request), requests.Prompt(ids, ids, []))
    except CallError as error:
        if experts and DIED in error.message:
            raise UserError(
                f"{replica.url} died of its first request, as vLLM does on a CPU with adapters of experts",
                where=WHERE,
                remedy="serve on GPUs, or sample with engine: transformers; on GPUs see the server's log",
            ) from None
        if error.kind is not FailureKind.REFUSED:
            raise
        remedy = f"start vLLM {VERSION} with --enable-scale-out"
        raise UserError(
            f"{replica.url} has no usable {requests.GENERATE}: {error.message}", where=WHERE, remedy=remedy
        ) from None
    except ValueError as error:
        raise UserError(f"{replica.url}: {error}", where=WHERE, remedy=f"serve with vLLM {VERSION}") from None
    if abs(answer.logprobs[0]) > 1e-4:
        raise UserError(
            f"{replica.url} reports log-probs of another distribution than it samples from",
            where=WHERE,
            remedy="start vLLM with --logprobs-mode processed_logprobs",
        )


async def _check_adapters(replica: Replica) -> None:
    try:
        await replica.post(UNLOAD, lora_name="gog-check")
    except CallError as error:
        if error.message == NO_ROUTE:
            raise UserError(
                f"{replica.url} loads no adapters while it runs",
                where=WHERE,
                remedy="start vLLM with --enable-lora, and with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in its environment",
            ) from None
        if error.kind is not FailureKind.REFUSED:  # it has no such adapter, as it should
            raise


def urls(given: str) -> Sequence[str]:
    """Base URLs of the replicas, of which a manifest gives several separated by commas.

    >>> urls("http://a:8000/, http://b:8000")
    ['http://a:8000', 'http://b:8000']
    """
    return [each.strip().rstrip("/") for each in given.split(",") if each.strip()]
