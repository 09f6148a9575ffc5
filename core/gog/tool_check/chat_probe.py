"""One turn of the model that an evaluation compares, by the call path and in the form that a stage uses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from gog import chat_dialect, judging, tool_api, tool_transport
from gog.call_path import CallPath
from gog.images import Image
from gog.spec import CacheSpec, CallPolicy, ModelEndpoint
from gog.tool_cache import Cache
from gog.tool_check.config import COMPARED
from gog.tool_types import Reply

QUESTION = "Who is shown in this photograph? Answer in one sentence."
MOST_TOKENS = 512
"""Tokens that the answer may take, reasoning included."""


async def ask(
    endpoint: ModelEndpoint,
    key: str,
    image: Image,
    policy: CallPolicy,
    observe: Callable[[tool_transport.Exchange], None],
) -> Reply[str]:
    """The model's answer to a question about an image.

    Args:
        endpoint: where the model is.
        key: its API key; empty for none.
        image: the image.
        policy: attempts and deadlines.
        observe: called after each request.
    """
    async with tool_transport.open_session() as session:
        url = endpoint.url.rstrip("/").removesuffix("/v1") + tool_api.CHAT_PATH
        transport = tool_transport.Transport(session, COMPARED, url, key, observe=observe)
        path: CallPath[str] = CallPath(
            COMPARED,
            tool_transport.BACKEND,
            chat_dialect.DialectTransport(transport.send).send,
            policy,
            Cache(CacheSpec(mode="off")),
            build=asyncio.to_thread,
        )
        return await path.call({}, lambda: body(endpoint, image), lambda answer: judging.reply_text(json.loads(answer)))


def body(endpoint: ModelEndpoint, image: Image) -> bytes:
    """The request, as JSON."""
    url = f"data:image/png;base64,{tool_api.encode_image(image)}"
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": QUESTION}]
    request: dict[str, Any] = {
        "model": endpoint.model,
        "messages": [{"role": "user", "content": content}],
        "temperature": 0,
        "max_tokens": min(MOST_TOKENS, endpoint.max_tokens),
        **endpoint.request,
    }
    return json.dumps(request).encode()
