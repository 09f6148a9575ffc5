"""The one HTTP client of tool servers: it reaches public pages and the servers that a back end names, nothing else.

Pages are chosen by a model and written by strangers. Every address is checked after resolution, and the connection goes
to the address that was checked, so a name that changes its answer (DNS rebinding) gains nothing. Redirects are followed
by hand, each checked like the first. Bodies are bounded in decoded bytes, in time from the first byte sent to the last
byte read, and in content types. A vendor's API is named by the user of a back end, not by a page: its address is not
checked, its redirects are refused, because they would carry our key.

HTTPS_PROXY, HTTP_PROXY and NO_PROXY are honoured (`gog.store.proxies`), and SSL_CERT_FILE adds private authorities. Behind
a proxy, literal addresses and names that this machine resolves are still checked; but the proxy resolves for itself, so it
must refuse internal addresses, too.

Errors name hosts, never paths and queries, which may hold keys.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import aiohttp
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult

from gog.errors import UserError
from gog.store import proxies
from gog_tools.fetch import addresses, bodies

MAX_URL = 2_048
"""Characters of a URL that is fetched."""
MAX_REDIRECTS = 5
PORTS = frozenset({80, 443})
USER_AGENT = "gog-fetch/1 (+https://gog.dev)"
TEXT_TYPES = ("text/html", "application/xhtml+xml", "text/plain", "text/markdown")
"""Content types of pages that can be read."""
JSON_TYPES = ("application/json",)


class Blocked(Exception):
    """A URL that may not be fetched, or a response that may not be read. A retry would not help."""


class Unreachable(Exception):
    """No complete answer: no address, no connection, or too slow. A retry may help."""


@dataclass(frozen=True)
class Limits:
    """Bounds of one fetch."""

    max_bytes: int = 2_000_000
    """Most bytes of a body, decoded."""
    seconds: float = 10.0
    """From the first request to the last byte of the last response, redirects and resolution included."""
    types: tuple[str, ...] = TEXT_TYPES
    """Content types that are read; empty accepts all."""


@dataclass(frozen=True)
class Answer:
    """A response, read to its end."""

    status: int
    """HTTP status."""
    headers: Mapping[str, str] = field(repr=False)
    """By name, without regard to case."""
    body: bytes = field(repr=False)
    """Decoded."""
    url: str = ""
    """Address of the last redirect."""

    @property
    def content_type(self) -> str:
        """Without parameters, in lower case."""
        return media_type(self.headers.get("content-type", ""))


Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""Addresses of a host name, as text."""


async def resolve(host: str) -> list[str]:
    """The addresses of a name, without the search domains of a cluster."""
    found = await asyncio.get_running_loop().getaddrinfo(f"{host.removesuffix('.')}.", None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


@dataclass(frozen=True)
class Rules:
    """What may be reached besides the public internet, and how."""

    allow: tuple[addresses.Network, ...] = ()
    """Networks that may be reached although they are not public: those of an intranet whose pages are to be read."""
    deny: tuple[addresses.Network, ...] = ()
    """Networks that may not be reached although they are public: those of a cluster with public addresses."""
    ports: frozenset[int] = PORTS
    """Ports of pages."""
    resolve: Resolve = resolve
    """Resolves names."""

    def check(self, text: str) -> yarl.URL:
        """The URL of a page, before it is resolved.

        Raises:
            Blocked: its form, scheme, port or literal address is not allowed.
        """
        url = _parsed(text)
        host = url.raw_host or ""
        if url.scheme not in ("http", "https"):
            raise Blocked(f"scheme {url.scheme[:20]!r} is not fetched: give http or https")
        if url.raw_user is not None or url.raw_password is not None:
            raise Blocked("a URL with a user or a password is not fetched")
        if url.port not in self.ports:
            raise Blocked(f"port {url.port} is not fetched")
        try:
            address = addresses.literal(host)
            if address is None:
                addresses.check_name(host, local=bool(self.allow))
        except ValueError as error:
            raise Blocked(f"host {host[:80]!r} is not fetched: {error}") from None
        if address is not None and (why := addresses.fault(address, allow=self.allow, deny=self.deny)):
            raise Blocked(why)
        return url

    async def addresses_of(self, host: str) -> list[addresses.Address]:
        """The checked addresses of a name or a literal address.

        Raises:
            Blocked: one of them is not allowed.
            OSError: the name does not resolve.
        """
        known = addresses.literal(host)
        found = [known] if known is not None else [ipaddress.ip_address(each) for each in await self.resolve(host)]
        for each in found:
            if why := addresses.fault(each, allow=self.allow, deny=self.deny):
                raise Blocked(f"host {host[:80]!r} is not fetched: {why}")
        if not found:
            raise OSError("no address")
        return found


class Guard:
    """Fetches pages and calls vendors. Use as an async context manager, inside one event loop."""

    def __init__(self, rules: Rules | None = None, *, environment: Mapping[str, str] = os.environ) -> None:
        """rules: what may be reached; environment: names proxies and authorities. Raises UserError."""
        self.rules, self._environment = rules or Rules(), environment
        self._tls = tls_context(environment)

    async def __aenter__(self) -> Guard:
        self._pages = self._session(resolver=_CheckedResolver(self.rules), force_close=True, use_dns_cache=False)
        self._vendors = self._session()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pages.close()
        await self._vendors.close()

    def _session(self, **connector: Any) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._tls, **connector),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            trust_env=False,  # proxies are named for each request; ~/.netrc is not read
        )

    async def page(self, url: str, limits: Limits = Limits()) -> Answer:
        """Fetches a page.

        Args:
            url: as a search returned it.
            limits: bounds of the whole fetch.

        Raises:
            Blocked: it may not be fetched, or what came back may not be read.
            Unreachable: no answer in time, or none at all.
        """
        async with self._bounded(url, limits.seconds):
            for _ in range(MAX_REDIRECTS + 1):
                checked = self.rules.check(url)
                proxy = self._proxy(checked)
                if proxy is not None:
                    await self._check_behind_proxy(checked)
                session = self._pages if proxy is None else self._vendors  # the proxy's own address is not a page's
                answer = await self._once(session, "GET", checked, limits, proxy=proxy, headers=_PAGE_HEADERS)
                if answer.status not in (301, 302, 303, 307, 308):
                    return answer
                url = _target(checked, answer.headers.get("location", ""))
        raise Blocked(f"more than {MAX_REDIRECTS} redirects")

    async def api(
        self,
        method: str,
        url: str,
        *,
        limits: Limits,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        json: Any = None,
    ) -> Answer:
        """Asks a server that a back end names: no check of its address, no redirects.

        Args:
            method: GET or POST.
            url: of the API, from the back end's options, never from a page.
            limits: bounds of the answer.
            headers: of the request; the key, where the vendor takes it in one.
            params: of the query.
            json: body of the request; None for none.

        Raises:
            Blocked: the answer is too large, of another type, or a redirect.
            Unreachable: no answer in time, or none at all.
        """
        address = yarl.URL(url).update_query(params or {})
        async with self._bounded(url, limits.seconds):
            sent = {"accept-encoding": bodies.ACCEPTED, "user-agent": USER_AGENT, **(headers or {})}
            proxy = self._proxy(address)
            answer = await self._once(self._vendors, method, address, limits, proxy=proxy, headers=sent, json=json)
        if 300 <= answer.status < 400:
            raise Blocked(f"{address.host} answers with a redirect ({answer.status}): correct its address")
        return answer

    @contextlib.asynccontextmanager
    async def _bounded(self, url: str, seconds: float) -> Any:
        """Failures of the network as Unreachable, without the URL's path and query."""
        host = _host_of(url)
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            raise Unreachable(f"{host}: no complete answer within {seconds:g} s") from None
        except Blocked:
            raise
        except (bodies.TooLarge, bodies.Undecodable) as error:
            raise Blocked(f"{host}: {error}") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if blocked := _blocked(error):
                raise blocked from None
            raise Unreachable(f"{host}: {_cause(error)}") from None

    def _proxy(self, url: yarl.URL) -> str | None:
        found = proxies.of(str(url.origin()), self._environment)
        return found.url if found is not None else None

    async def _check_behind_proxy(self, url: yarl.URL) -> None:
        """The proxy resolves names itself; a name that is internal here is refused before it is sent there."""
        with contextlib.suppress(OSError):  # a cluster behind a proxy often resolves no public names
            await self.rules.addresses_of(url.raw_host or "")

    async def _once(
        self, session: aiohttp.ClientSession, method: str, url: yarl.URL, limits: Limits, **request: Any
    ) -> Answer:
        """One request without redirects, its body read if it is a final one."""
        async with session.request(method, url, allow_redirects=False, **request) as response:
            body = b""
            if not 300 <= response.status < 400:
                kind = media_type(response.headers.get("content-type", ""))
                if response.status == 200 and limits.types and kind not in limits.types:
                    raise Blocked(f"{url.host}: content type {kind[:60] or 'none'!r} is not read")
                body = await _body(response, limits.max_bytes)
            return Answer(response.status, response.headers, body, str(url))


class _CheckedResolver(AbstractResolver):
    """Gives aiohttp the addresses that the rules have checked; it connects to those and resolves nothing itself."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        try:
            found = await self._rules.addresses_of(host)
        except Blocked as error:
            raise OSError("blocked") from error
        return [
            ResolveResult(
                hostname=host,
                host=str(each),
                port=port,
                family=socket.AF_INET6 if each.version == 6 else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for each in found
        ]

    async def close(self) -> None:
        return


_PAGE_HEADERS = {
    "accept": ", ".join(TEXT_TYPES),
    "accept-encoding": bodies.ACCEPTED,
    "accept-language": "en,*;q=0.5",
    "user-agent": USER_AGENT,
}


async def _body(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The decoded body. Raises bodies.TooLarge, bodies.Undecodable."""
    decoder, parts = bodies.Decoder(response.headers.get("content-encoding", ""), limit), []
    async for part in response.content.iter_chunked(1 << 16):
        parts.append(decoder.feed(part))
    decoder.finish()
    return b"".join(parts)


def _parsed(text: str) -> yarl.URL:
    """A URL as the HTTP client reads it, so that what is checked is what is fetched. Raises Blocked."""
    if len(text) > MAX_URL:
        raise Blocked(f"a URL of more than {MAX_URL:,} characters is not fetched")
    if any(character <= " " or character in "\\\x7f" for character in text):
        raise Blocked("a URL with white space, control characters or a backslash is not fetched")
    try:
        url = yarl.URL(text)
        host, port = url.raw_host, url.port  # encoded by IDNA, which also turns ①②⑦ into 127; the port is read lazily
    except (ValueError, UnicodeError, TypeError) as error:
        raise Blocked(f"not a URL: {str(error)[:120]}") from None
    if not host or not host.isascii() or port is None:
        raise Blocked("a URL without a host or of another scheme than http and https is not fetched")
    return url


def _target(base: yarl.URL, location: str) -> str:
    """Where a redirect leads. Raises Blocked."""
    if not location or len(location) > MAX_URL:
        raise Blocked("a redirect without a usable address")
    try:
        target = base.join(yarl.URL(location, encoded=False))
    except (ValueError, UnicodeError) as error:
        raise Blocked(f"a redirect to something that is not a URL: {str(error)[:80]}") from None
    return str(target)


def media_type(header: str) -> str:
    """A content type without its parameters, in lower case."""
    return header.partition(";")[0].strip().lower()


def _host_of(url: str) -> str:
    try:
        return (yarl.URL(url).host or "the URL")[:80]
    except (ValueError, UnicodeError):
        return "the URL"


def _blocked(error: BaseException | None) -> Blocked | None:
    """What the resolver raised, somewhere below an error of aiohttp."""
    while error is not None and not isinstance(error, Blocked):
        error = error.__cause__
    return error


def _cause(error: Exception) -> str:
    """What failed, without an address: messages of HTTP libraries contain the whole URL."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "its certificate is not trusted"
    if isinstance(error, aiohttp.ClientConnectorDNSError | socket.gaierror):
        return "the name does not resolve"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection: {error.os_error.strerror or type(error.os_error).__name__}"
    return type(error).__name__


def tls_context(environment: Mapping[str, str]) -> ssl.SSLContext:
    """Trusts the system's authorities and those of SSL_CERT_FILE. Raises UserError for a file that cannot be read."""
    chosen = environment.get("SSL_CERT_FILE", "").strip()
    context = ssl.create_default_context()
    try:
        if chosen:
            context.load_verify_locations(cafile=chosen)
    except (OSError, ssl.SSLError) as error:
        cause = getattr(error, "reason", None) or error.strerror
        raise UserError(f"not a PEM file: {cause}", where=f"SSL_CERT_FILE: {chosen}", remedy="name one") from None
    return context


def networks(texts: Sequence[str], option: str) -> tuple[addresses.Network, ...]:
    """Networks from their CIDR form. option: for messages. Raises UserError."""
    try:
        return tuple(ipaddress.ip_network(each) for each in texts)
    except ValueError as error:
        raise UserError(str(error), where=f"--options {option}", remedy="give networks as 10.1.0.0/16") from None
