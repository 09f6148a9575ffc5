"""A process that takes the part of every trainer of a cluster: it answers `/progress` of any host on one port of loopback.

Each request of a host sees the next step. In namespaces whose name begins with `hostile`, half of the trainers drip their
response, and the others change every metric each time, as much of it as is read. Prints its port.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
DRIP_SECONDS = 0.3

steps: Counter[str] = Counter()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        host = next(line[5:].strip() for line in head.splitlines() if line.lower().startswith("host:"))
        await answer(writer, host)
    except (OSError, asyncio.IncompleteReadError):
        return  # the client has seen enough
    finally:
        writer.close()


async def answer(writer: asyncio.StreamWriter, host: str) -> None:
    steps[host] += 1
    step = steps[host]
    if ".hostile" not in host:
        body = {
            "step": step,
            "total": 100_000,
            "metrics": {"reward": 0.5, "tool_failure_ratio": 0.01, "loss": 1 / step},
        }
    elif hash(host) % 2:
        writer.write(OK + b"Content-Length: 60000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(DRIP_SECONDS)
    else:
        body = {"step": step, "total": 10, "metrics": {f"m{number}-{step}": step * number for number in range(250)}}
    data = json.dumps(body).encode()
    writer.write(OK + b"Content-Length: %d\r\n\r\n" % len(data) + data)
    await writer.drain()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
