"""Grounding as a `kserve.Model` behind KServe's own application: images and expressions in, boxes out.

KServe runs a predictor on the event loop, health included; here images are decoded and looked at in a thread, in
micro-batches. Everything a caller can get wrong is a 400 with a sentence; what a back end gets wrong is a 500.

All boxes a back end finds are returned: clamping, de-duplication and cropping are the agent's (gog.regions).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import kserve
import kserve.model_server
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from kserve.constants.constants import FASTAPI_APP_IMPORT_STRING
from kserve.errors import InferenceError, InvalidInput
from kserve.protocol.rest.server import RESTServer
from pydantic import ValidationError

from gog import tool_api
from gog.errors import UserError
from gog.images import Image
from gog_tools.grounding import detectors
from gog_tools.serving.batching import MicroBatcher
from gog_tools.serving.failures import App, Receive, Scope, Send, reply

NAME = "grounding"


class GroundingModel(kserve.Model):
    """Wire format, batches and errors around a Detector."""

    def __init__(self, detector: detectors.Detector, *, batch_size: int, batch_wait: float) -> None:
        super().__init__(NAME, return_response_headers=True)
        self.detector = detector
        self.batches: MicroBatcher[tool_api.GroundingInstance, list[tool_api.Detection]] = MicroBatcher(
            self._work, max_size=batch_size, max_wait=batch_wait
        )
        self.ready = True

    async def predict(
        self, payload: Any, headers: dict[str, str] | None = None, response_headers: dict[str, str] | None = None
    ) -> bytes:
        """GroundingRequest -> GroundingResponse as JSON. Raises InvalidInput or InferenceError."""
        instances = _instances(payload)
        found = await asyncio.gather(*(self._detect(instance) for instance in instances))
        if response_headers is not None:
            response_headers["content-type"] = "application/json"
        predictions = [tool_api.GroundingPrediction(detections=detections) for detections in found]
        return tool_api.GroundingResponse(predictions=predictions).model_dump_json().encode()

    async def _detect(self, instance: tool_api.GroundingInstance) -> list[tool_api.Detection]:
        try:
            return await self.batches.submit(instance)
        except UserError as error:
            raise InvalidInput(error.sentence()) from None
        except Exception as error:
            raise InferenceError(f"the detector failed: {type(error).__name__}: {error}") from error

    def _work(self, instances: Sequence[tool_api.GroundingInstance]) -> list[list[tool_api.Detection] | Exception]:
        """One batch, in the worker thread. An image that cannot be read fails alone."""
        results: list[list[tool_api.Detection] | Exception] = []
        readable: list[tuple[int, Image, str]] = []
        for index, instance in enumerate(instances):
            try:
                readable.append((index, tool_api.decode_image(instance.image), instance.expression))
                results.append([])
            except UserError as error:
                results.append(error)
        if readable:
            found = self.detector.detect([item[1] for item in readable], [item[2] for item in readable])
            for (index, _, _), detections in zip(readable, found, strict=True):
                results[index] = detections
        return results


def _instances(payload: Any) -> list[tool_api.GroundingInstance]:
    try:
        return tool_api.GroundingRequest.model_validate(payload).instances
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInput(f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}") from None


class _Application(RESTServer):
    """KServe's application without its timing layer, which logs what nobody reads and costs a tenth of a request."""

    def _add_middlewares(self, app: FastAPI) -> None:
        pass


def application(model: GroundingModel) -> App:
    """KServe's application with the model registered."""
    for name in ("kserve", "kserve.trace"):
        logging.getLogger(name).setLevel(logging.WARNING)
    server = kserve.ModelServer(enable_grpc=False, enable_latency_logging=False)
    server.register_model(model)
    _Application(FASTAPI_APP_IMPORT_STRING, server.dataplane, server.model_repository_extension, 0).create_application()
    app = kserve.model_server.app
    app.add_exception_handler(InvalidInput, _refuse)

    async def without_repository(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/v2/repository"):
            await reply(send, 404, b"not found")  # where KServe lets any caller unload the model
        else:
            await app(scope, receive, send)

    return without_repository


async def _refuse(_: Request, error: Exception) -> JSONResponse:
    """A caller's mistake: told to the caller, without KServe's traceback in the log."""
    return JSONResponse({"error": str(error)}, 400)
