"""Reading a JSON body and answering with one, cheaply and with sentences for errors.

The servers answer tens of thousands of small calls beside a trainer on the same cores, so bodies are parsed by pydantic
straight from bytes and replies are bytes: FastAPI's own way there and back takes several times as long.
"""

from __future__ import annotations

import json
from typing import TypeVar

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ValidationError

from gog.errors import UserError

Body = TypeVar("Body", bound=BaseModel)


class Refusal(Exception):
    """A request refused with another status than 400."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


async def read(request: Request, kind: type[Body]) -> Body:
    """The body as `kind`. Raises UserError naming the field."""
    try:
        return kind.model_validate_json(await request.body())
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "body"
        raise UserError(first["msg"], where=field) from None


def reply(body: BaseModel, status: int = 200) -> Response:
    return Response(body.model_dump_json(), status, media_type="application/json")


def refuse(status: int, sentence: str) -> Response:
    """An error in the form that OpenAI clients read; others show it as it is."""
    body = {"error": {"message": sentence, "type": "invalid_request_error" if status < 500 else "server_error"}}
    return Response(json.dumps(body), status, media_type="application/json")


def application(title: str) -> FastAPI:
    """A FastAPI app on which a UserError raised by a route is a 400, and a Refusal what it says."""
    app = FastAPI(title=title, docs_url=None, redoc_url=None)

    @app.exception_handler(UserError)
    async def told(_: Request, error: UserError) -> Response:
        return refuse(400, error.sentence())

    @app.exception_handler(Refusal)
    async def refused(_: Request, error: Refusal) -> Response:
        return refuse(error.status, error.sentence)

    return app
