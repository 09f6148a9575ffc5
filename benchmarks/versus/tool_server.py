"""A grounding server and a judge that answer after a given time, for gog's own HTTP clients.

    python tool_server.py READY_FILE

The latency is set with `POST /latency {"seconds": 0.5}`. It answers with the squares of `workload.box_of`, and Yes.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import workload
from aiohttp import web

from gog import tool_api

READY = Path(sys.argv[1])
latency = 0.0


async def set_latency(request: web.Request) -> web.Response:
    """Seconds that every later call of grounding takes."""
    global latency
    latency = float((await request.json())["seconds"])
    return web.json_response({})


async def ground(request: web.Request) -> web.Response:
    """One detection for the expression."""
    instance = (await request.json())["instances"][0]
    await asyncio.sleep(latency)
    found = tool_api.Detection(box=workload.box_of(instance["expression"]), score=0.9)
    answer = tool_api.GroundingResponse(predictions=[tool_api.GroundingPrediction(detections=[found])])
    return web.Response(text=answer.model_dump_json(), content_type="application/json")


async def judge(request: web.Request) -> web.Response:
    """A verdict."""
    await request.read()
    return web.json_response({"choices": [{"message": {"role": "assistant", "content": "Yes"}}]})


async def serve() -> None:
    """Serves until the process is ended."""
    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/latency", set_latency)
    app.router.add_post(tool_api.GROUNDING_PATH, ground)
    app.router.add_post(tool_api.CHAT_PATH, judge)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    await asyncio.to_thread(READY.write_text, f"http://127.0.0.1:{runner.addresses[0][1]}")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve())
