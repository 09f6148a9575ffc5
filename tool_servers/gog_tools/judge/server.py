"""The judge server: OpenAI's chat protocol around a back end that gives verdicts.

The client (gog.judging) sends the same case to this server and to any judge model behind an OpenAI-compatible server,
so either can take the other's place. Sampling settings have no effect: how a verdict is made is the back end's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from fastapi import Request, Response

from gog import tool_api
from gog_tools.judge.backend import Judge
from gog_tools.serving import backend_calls, backends, chat, http_json, inputs, process
from gog_tools.serving.failures import App

NAME = "judge"


def application(judge: Judge, *, model: str) -> App:
    """The judge server's application. model: its name in /v1/models."""

    def work(conversations: Sequence[Sequence[chat.Message]]) -> list[str | Exception]:
        return [
            text if isinstance(text, str) else TypeError(f"a reply of type {type(text).__name__}")
            for text in judge.reply(conversations)
        ]

    batches = backend_calls.batcher(judge, work)
    app = http_json.application("gog judge")

    @app.post(tool_api.CHAT_PATH)
    async def reply(request: Request) -> Response:
        body = await http_json.read(request, chat.ChatRequest)
        text = await backend_calls.answer(batches, body.messages)
        # A back end reports no tokens; words are the nearest count.
        usage = chat.Usage.of(prompt=sum(len(each.text.split()) for each in body.messages), new=len(text.split()))
        choice = {"message": {"role": "assistant", "content": text}, "logprobs": None, "finish_reason": "stop"}
        return http_json.reply(chat.completion(choice, model=body.model or model, usage=usage))

    chat.add_models(app, lambda: chat.models([model]))
    return app


def build(args: argparse.Namespace) -> App:
    """The application. Raises UserError for a back end that cannot be created."""
    judge: Judge = backends.load(NAME, args.backend, args.options, Judge, inputs.resources(args))
    return application(judge, model=args.backend if ":" in args.backend else f"{args.backend}-judge")


def main(argv: list[str]) -> int:
    """`gog serve judge`. Returns the exit code."""
    options = process.parser(NAME, "Verdicts on answers, over OpenAI's chat protocol.")
    backends.add_arguments(options, NAME)
    return process.main(NAME, options, argv, build)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
