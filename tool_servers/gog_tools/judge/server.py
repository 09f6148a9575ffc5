"""The embedded world's judge: an OpenAI chat server whose verdict is a comparison of words.

It reads the same case that a real judge model is sent, and answers Yes when the given answer equals an accepted one
after normalisation. It does not read rules or weigh meanings; a question that needs that needs a real judge.
"""

from __future__ import annotations

import argparse
import json
import sys

from fastapi import Request, Response

from gog import judging, tool_api
from gog.errors import UserError
from gog_tools.serving import chat, http_json, process
from gog_tools.serving.failures import App

NAME = "judge"
MODEL = "world-judge"


def verdict(content: str) -> str:
    """Yes or No for a case as gog.judging writes it. Raises UserError for anything else."""
    try:
        _, accepted, answer = judging.read_case(content)
    except (ValueError, KeyError, TypeError):
        raise UserError(
            "the last message is not a case", where="messages", remedy="send what gog.judging.messages() makes"
        ) from None
    given = judging.normalise(answer)
    return "Yes" if given and given in {judging.normalise(item) for item in accepted} else "No"


def application() -> App:
    app = http_json.application("gog judge")

    @app.post(tool_api.CHAT_PATH)
    async def judge(request: Request) -> Response:
        asked = await http_json.read(request, chat.ChatRequest)
        message = {"role": "assistant", "content": verdict(asked.messages[-1].text)}
        usage = chat.Usage(completion_tokens=1, total_tokens=1)
        reply = chat.completion({"message": message, "finish_reason": "stop"}, model=asked.model or MODEL, usage=usage)
        return Response(json.dumps(reply), media_type="application/json")

    @app.get("/v1/models")
    async def models() -> Response:
        return Response(json.dumps(chat.models([MODEL])), media_type="application/json")

    return app


def build(_: argparse.Namespace) -> App:
    return application()


def main(argv: list[str]) -> int:
    """`gog serve judge`. Returns the exit code."""
    options = process.parser(NAME, "A judge that compares words, over OpenAI's chat protocol.")
    options.add_argument("--backend", default="world", choices=("world",), help="the only one so far")
    options.add_argument("--data", help="not read: this server knows only what it is sent")
    return process.main(NAME, options, argv, build)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
