"""Grounding as a `kserve.Model` behind KServe's own application: images and expressions in, boxes out.

KServe runs a predictor on the event loop, health included; here images are decoded in threads, while an earlier
micro-batch is searched in another one. A caller's mistake is a 400 with a sentence, a back end's failure a 500, an
unavailable back end a 503.

All boxes a back end finds are returned: clamping, de-duplication and cropping are the agent's (gog.regions).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import kserve
import kserve.model_server
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from kserve.constants.constants import FASTAPI_APP_IMPORT_STRING
from kserve.errors import InferenceError, InvalidInput
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.rest.server import RESTServer

from gog import tool_api
from gog.errors import UserError
from gog.images import Image
from gog_tools.grounding import decoded
from gog_tools.grounding.backend import Detector
from gog_tools.serving import backend_calls, errors, http_json
from gog_tools.serving.failures import App, Receive, Scope, Send, reply

NAME = "grounding"
LONG_BODY = 1 << 17
"""Bytes from which the body of a request is parsed in a thread."""


@dataclass(frozen=True)
class Job:
    """What a detector is asked for."""

    image: Image
    """The image, decoded."""
    expression: str
    """Words for the things to find."""


class GroundingModel(kserve.Model):
    """Wire format, batches and errors around a Detector."""

    def __init__(self, detector: Detector, *, batch_size: int, batch_wait: float) -> None:
        """Creates a model that is ready. batch_size: most images in a call; batch_wait: seconds for a second one."""
        super().__init__(NAME, return_response_headers=True)
        self.detector = detector
        self.batches = backend_calls.batcher(detector, self._detect, max_size=batch_size, max_wait=batch_wait)
        self.images = decoded.DecodedImages()
        # One batch is searched while the next is decoded. Other requests wait encoded, which takes less memory.
        self.places = asyncio.Semaphore(2 * self.batches.max_size)
        self.ready = True

    async def predict(
        self, payload: Any, headers: dict[str, str] | None = None, response_headers: dict[str, str] | None = None
    ) -> bytes:
        """GroundingRequest -> GroundingResponse, both as JSON.

        Raises:
            InvalidInput: for a fault of the request.
            errors.RequestError: for a back end that is unavailable.
            InferenceError: for a back end that failed.
        """
        try:
            is_long = isinstance(payload, bytes) and len(payload) > LONG_BODY
            instances = await asyncio.to_thread(_instances, payload) if is_long else _instances(payload)
            predictions = await asyncio.gather(*map(self._answer, instances))
        except UserError as error:
            raise InvalidInput(error.sentence()) from None
        except errors.RequestError as error:
            if error.status == 500:
                raise InferenceError(error.message) from None
            raise
        if response_headers is not None:
            response_headers["content-type"] = "application/json"
        return tool_api.GroundingResponse(predictions=predictions).model_dump_json().encode()

    async def _answer(self, instance: tool_api.GroundingInstance) -> tool_api.GroundingPrediction:
        """The prediction for one image. Raises UserError for one that cannot be read, and as `backend_calls.answer`."""
        async with self.places, self.images.held(instance.image) as image:
            return await backend_calls.answer(self.batches, Job(image, instance.expression))

    def _detect(self, jobs: Sequence[Job]) -> list[tool_api.GroundingPrediction | Exception]:
        """One batch, in a thread."""
        found = self.detector.detect([job.image for job in jobs], [job.expression for job in jobs])
        return [_prediction(detections) for detections in found]


def _instances(payload: Any) -> list[tool_api.GroundingInstance]:
    """The instances of a request, as bytes or parsed. Raises UserError."""
    body = http_json.parse(payload) if isinstance(payload, bytes) else payload
    return http_json.validate(body, tool_api.GroundingRequest).instances


def _prediction(detections: Sequence[tool_api.Detection]) -> tool_api.GroundingPrediction | Exception:
    """A back end's result, or the fault in it."""
    try:
        for each in detections:
            backend_calls.finite(*each.box, each.score)
        return tool_api.GroundingPrediction(detections=list(detections))
    except (ValueError, TypeError, AttributeError) as error:
        return error


class _DataPlane(DataPlane):
    """KServe's data plane, except that our model parses its own requests: orjson accepts a key that occurs twice."""

    def decode(self, body: Any, headers: dict[str, str], *arguments: Any, **named: Any) -> tuple[Any, dict[str, Any]]:
        event = any(name.startswith("ce-") for name in headers) or "cloudevents" in headers.get("content-type", "")
        if isinstance(body, bytes) and not (event or arguments or named):
            return body, {}
        decoded: tuple[Any, dict[str, Any]] = super().decode(body, headers, *arguments, **named)
        return decoded


class _Application(RESTServer):
    """KServe's application without its timing layer, whose log is not read and costs a tenth of a request."""

    def _add_middlewares(self, app: FastAPI) -> None:
        pass


def application(model: GroundingModel) -> App:
    """KServe's application with the model registered."""
    for name in ("kserve", "kserve.trace"):
        logging.getLogger(name).setLevel(logging.WARNING)
    server = kserve.ModelServer(enable_grpc=False, enable_latency_logging=False)
    server.register_model(model)
    plane = _DataPlane(model_registry=server.registered_models)
    _Application(FASTAPI_APP_IMPORT_STRING, plane, server.model_repository_extension, 0).create_application()
    app = kserve.model_server.app
    app.add_exception_handler(InvalidInput, _invalid_input)
    app.add_exception_handler(errors.RequestError, _request_error)

    async def without_repository(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/v2/repository"):
            await reply(send, 404, b"not found")  # where KServe lets any caller unload the model
        else:
            await app(scope, receive, send)

    return without_repository


async def _invalid_input(_: Request, error: Exception) -> JSONResponse:
    """A caller's mistake in KServe's form of an error, without KServe's traceback in the log."""
    return JSONResponse({"error": str(error)}, 400)


async def _request_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, errors.RequestError)
    return JSONResponse({"error": error.message}, error.status, dict(errors.headers(error)))
