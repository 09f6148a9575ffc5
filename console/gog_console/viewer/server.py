"""HTTP on the loopback interface, for the browser of one user.

Access is restricted in three ways. The socket listens on 127.0.0.1 only. The Host header must match, which defeats DNS
rebinding. A random token, contained once in the printed URL and then kept in a cookie, authenticates the user who
started the viewer against other users of the machine. Answers allow only their own scripts, styles and images, and no
framing.
"""

from __future__ import annotations

import hmac
import http.server
import secrets
import sys
import threading
from importlib import resources
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from gog_console.report import page
from gog_console.viewer.api import Answer, Api, refused

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
LARGEST_BODY = 64 << 10
PATIENCE = 60
"""Seconds after which an idle connection is closed."""
OWN = resources.files("gog_console.viewer").joinpath("static")
STYLES, SCRIPTS = ("view.css",), ("server.js", "review.js", "view.js")
UNAUTHENTICATED = "Open the URL that `gog view` printed; it contains the key to this page."


def assets() -> dict[str, Answer]:
    """Files of the page by path: the report's viewer and the parts that only `gog view` has."""
    style = "".join([*(page.asset(name) for name in page.STYLES), *(_own(name) for name in STYLES)])
    script = "".join(["'use strict';\n", page.component(), *(_own(name) for name in SCRIPTS)])
    return {
        "/": Answer(_own("view.html").encode(), "text/html"),
        "/view.css": Answer(style.encode(), "text/css"),
        "/view.js": Answer(script.encode(), "text/javascript"),
        "/icon.svg": Answer(_own("icon.svg").encode(), "image/svg+xml"),
    }


def _own(name: str) -> str:
    return OWN.joinpath(name).read_text(encoding="utf-8")


class Server(http.server.ThreadingHTTPServer):
    """Serves an Api on a loopback port; 0 selects a free one. Raises OSError when the port is in use."""

    daemon_threads = True

    def __init__(self, api: Api, port: int = 0, token: str | None = None) -> None:
        self.api, self.token = api, token or secrets.token_urlsafe(18)
        self.assets = assets()
        super().__init__(("127.0.0.1", port), Handler)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        """With the token, to be opened once."""
        return f"http://127.0.0.1:{self.port}/?token={self.token}"

    def start(self) -> threading.Thread:
        thread = threading.Thread(target=self.serve_forever, name="gog-view", daemon=True)
        thread.start()
        return thread

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores a browser that disconnects during an answer; other errors are handled by the base class."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server
    timeout = PATIENCE
    server_version, sys_version = "gog", ""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query))
        if not self._is_for_us():
            return self._send(refused(421, "this is not the address of this page"))
        if url.path == "/" and hmac.compare_digest(query.get("token", "").encode(), self.server.token.encode()):
            return self._welcome()
        if not self._is_known():
            return self._send(Answer(UNAUTHENTICATED.encode(), "text/plain", 403))
        if url.path in self.server.assets:
            return self._send(self.server.assets[url.path])
        return self._send(self.server.api.get(url.path, query))

    def do_POST(self) -> None:
        """Only a decision, and only from the page itself."""
        body = self._body()
        if body is None:
            self.close_connection = True
            return self._send(refused(413, f"at most {LARGEST_BODY:,} bytes are taken"))
        if not self._is_for_us() or self.headers.get("Origin") != f"http://{self.headers.get('Host')}":
            return self._send(refused(403, "this did not come from this page"))
        if not self._is_known():
            return self._send(refused(403, UNAUTHENTICATED))
        if self.path != "/api/review" or self.headers.get_content_type() != "application/json":
            return self._send(refused(404, "there is no such page"))
        return self._send(self.server.api.decide(body))

    def _body(self) -> bytes | None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > LARGEST_BODY:
            return None
        return self.rfile.read(int(length))

    def _is_for_us(self) -> bool:
        return self.headers.get("Host") in {f"{name}:{self.server.port}" for name in ("127.0.0.1", "localhost")}

    def _is_known(self) -> bool:
        cookies = [part.strip().partition("=") for part in self.headers.get("Cookie", "").split(";")]
        given = next((value for name, _, value in cookies if name == self._cookie()), "")
        return hmac.compare_digest(given.encode(), self.server.token.encode())

    def _cookie(self) -> str:
        return f"gog-view-{self.server.port}"

    def _welcome(self) -> None:
        """Moves the token from the URL into a cookie."""
        cookie = f"{self._cookie()}={self.server.token}; Path=/; HttpOnly; SameSite=Strict"
        self._send(Answer(b"", "text/plain", 303), {"Location": "/", "Set-Cookie": cookie})

    def _send(self, answer: Answer, extra: dict[str, str] | None = None) -> None:
        headers = {
            "Content-Type": f"{answer.kind}; charset=utf-8" if not answer.kind.startswith("image/") else answer.kind,
            "Content-Length": str(len(answer.body)),
            "Content-Security-Policy": POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cache-Control": "private, max-age=3600" if answer.keep else "no-store",
            **(extra or {}),
        }
        self.send_response(answer.status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Discards the message, because the page shows errors itself."""
