"""A server that answers nothing: it binds its port and writes its ready file, or fails as TOY_SERVER requests:
{"grounding": {"exit": 1}} ends at once, {"grounding": {"silent": true}} is never ready."""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("role")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--ready-file", type=Path, required=True)
    given, _ = parser.parse_known_args()
    toy = json.loads(os.environ.get("TOY_SERVER", "{}")).get(given.role, {})
    if "exit" in toy:
        print(f"toy: {given.role} ends on purpose", file=sys.stderr)
        return int(toy["exit"])
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", given.port))
        if not toy.get("silent"):
            temporary = given.ready_file.with_suffix(".tmp")
            address = f"http://127.0.0.1:{listener.getsockname()[1]}"
            temporary.write_text(json.dumps({"url": address, "pid": os.getpid()}))
            temporary.replace(given.ready_file)
        signal.sigwait({signal.SIGTERM})
    return 0


if __name__ == "__main__":
    sys.exit(main())
