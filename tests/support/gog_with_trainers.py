"""Runs `gog` with the names of a cluster's pods resolved to one port of loopback (`trainers.py`): PORT ARGUMENT…

Only name resolution is replaced; requests are sent and bounded as on a cluster.
"""

from __future__ import annotations

import socket
import sys
from typing import Any

from gog_console import cli

resolve = socket.getaddrinfo


def main() -> int:
    port, arguments = int(sys.argv[1]), sys.argv[2:]

    def answer(host: Any, *more: Any, **options: Any) -> Any:
        if isinstance(host, str) and host.endswith(".svc"):
            return resolve("127.0.0.1", port, type=socket.SOCK_STREAM)
        return resolve(host, *more, **options)

    socket.getaddrinfo = answer
    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
