"""Reading JSON requests and writing JSON answers.

The servers answer tens of thousands of small calls beside a trainer on the same cores, so bodies are parsed by jiter
and answers are bytes: FastAPI's own conversion takes several times as long. Parsing is strict, because two parsers that
disagree about a body are a way around validation: a key that occurs twice, NaN, Infinity, nesting beyond 200 levels and
text that is not UTF-8 are each a 400 with a sentence. Answers never contain NaN or Infinity either.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

import jiter
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException

from gog import validation
from gog.errors import UserError
from gog_tools.serving import errors

Body = TypeVar("Body", bound=BaseModel)
BOM = b"\xef\xbb\xbf"
"""UTF-8's byte-order mark, which some clients send."""


def parse(body: bytes) -> Any:
    """The value of a JSON body.

    Raises:
        UserError: for a body that is not strict JSON in UTF-8.
    """
    try:
        return jiter.from_json(body.removeprefix(BOM), allow_inf_nan=False, catch_duplicate_keys=True)
    except ValueError as error:
        raise UserError(_fault(body, error), where="body", remedy="send one JSON object in UTF-8") from None


def _fault(body: bytes, error: ValueError) -> str:
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as wrong:
        return f"not UTF-8: {wrong.reason} at byte {wrong.start}"
    return f"not valid JSON: {error}"


def validate(value: Any, kind: type[Body]) -> Body:
    """A parsed body as `kind`.

    Raises:
        UserError: naming the first field that does not fit.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise invalid(error, where="body") from None


def invalid(error: ValidationError, *, where: str, prefix: str = "", remedy: str = "") -> UserError:
    """The first fault of a validation as a UserError.

    Args:
        error: what pydantic raised
        where: the place when the whole value is at fault, not one of its fields
        prefix: put before the name of the field
        remedy: what to do about it
    """
    field, cause = validation.first_problem(error)
    return UserError(cause, where=f"{prefix}{field}" if field else where, remedy=remedy)


async def read(request: Request, kind: type[Body]) -> Body:
    """The body of a request as `kind`.

    Raises:
        UserError: for a body that is not JSON, or naming the field that does not fit.
    """
    return validate(parse(await request.body()), kind)


def reply(content: BaseModel | dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer.

    Raises:
        RequestError: with status 500 for a dict with a number that is not finite, which JSON cannot express.
    """
    if isinstance(content, BaseModel):
        text = content.model_dump_json()
    else:
        try:
            text = json.dumps(content, allow_nan=False, separators=(",", ":"))
        except ValueError:
            raise errors.RequestError(500, "the answer contains a number that is not finite") from None
    return Response(text, status, headers, media_type="application/json")


def failure(error: errors.RequestError) -> Response:
    """The answer to a request that failed."""
    return Response(
        errors.body(error.status, error.message),
        error.status,
        dict(errors.headers(error)),
        media_type="application/json",
    )


def application(title: str) -> FastAPI:
    """A FastAPI application whose routes may raise what `gog_tools.serving.errors` lists."""
    app = FastAPI(title=title, docs_url=None, redoc_url=None)

    @app.exception_handler(UserError)
    async def user_error(_: Request, error: UserError) -> Response:
        return failure(errors.RequestError(400, error.sentence()))

    @app.exception_handler(errors.RequestError)
    async def request_error(_: Request, error: errors.RequestError) -> Response:
        return failure(error)

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> Response:
        return failure(errors.RequestError(error.status_code, f"{request.method} {request.url.path}: {error.detail}"))

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> Response:
        return failure(errors.RequestError(500, errors.UNEXPECTED))  # the middleware logs the traceback

    return app
