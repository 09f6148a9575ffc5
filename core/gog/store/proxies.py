"""Which proxy a request goes through, from the environment.

boto3 uses Python's rules, and the store's own connections must use the same proxy. Both therefore follow this module:
HTTPS_PROXY, HTTP_PROXY and ALL_PROXY in either case, and NO_PROXY with names, domains, addresses and, unlike Python, the
address ranges that clusters put there. Loopback addresses and the names of a cluster's services (`….svc`,
`….svc.cluster.local`) are never proxied: a proxy outside cannot resolve them.
"""

from __future__ import annotations

import base64
import ipaddress
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field

from gog.errors import UserError


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy."""

    host: str
    """Name or address."""
    port: int
    """TCP port."""
    url: str = field(repr=False)
    """Its address, perhaps with user and password."""

    @property
    def headers(self) -> dict[str, str]:
        """The headers that authenticate to it."""
        parts = urllib.parse.urlsplit(self.url)
        if parts.username is None:
            return {}
        pair = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        return {"Proxy-Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def of(url: str, environment: Mapping[str, str]) -> Proxy | None:
    """The proxy for requests to a URL; None if they go directly.

    Raises:
        UserError: the environment names a proxy that is not an http:// one.
    """
    target = urllib.parse.urlsplit(url)
    host, port = str(target.hostname), target.port or {"https": 443}.get(target.scheme, 80)
    variables = (f"{target.scheme}_proxy", "all_proxy")
    given = next((value for name in variables if (value := _variable(name, environment))), "")
    if not given or _is_local(host) or _is_excluded(host, port, _variable("no_proxy", environment)):
        return None
    full = given if "://" in given else f"http://{given.removeprefix('//')}"
    parts = urllib.parse.urlsplit(full)
    try:
        found = Proxy(str(parts.hostname or ""), parts.port or 80, full)
    except ValueError:
        found = Proxy("", 0, full)
    if parts.scheme != "http" or not found.host:
        raise UserError(
            f"the proxy for {target.scheme}:// is not an http:// address",
            where=f"environment: {target.scheme.upper()}_PROXY",
            remedy=f"name one as http://host:port, or exclude {host} in NO_PROXY",
        )
    return found


def named(environment: Mapping[str, str]) -> bool:
    """Whether the environment names any proxy."""
    return any(_variable(name, environment) for name in ("http_proxy", "https_proxy", "all_proxy"))


def _variable(name: str, environment: Mapping[str, str]) -> str:
    return (environment.get(name) or environment.get(name.upper()) or "").strip()


def _is_local(host: str) -> bool:
    """Whether a host is this machine, or a service of the cluster that this process runs in."""
    address = _address(host)
    local = host == "localhost" or host.endswith((".svc", ".svc.cluster.local"))
    return local or (address is not None and address.is_loopback)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_excluded(host: str, port: int, no_proxy: str) -> bool:
    entries = [entry.strip().lower() for entry in no_proxy.split(",")]
    return any(_matches(entry, host.lower(), port) for entry in entries if entry)


def _matches(entry: str, host: str, port: int) -> bool:
    address = _address(host)
    if entry == "*":
        return True
    if address is not None and "/" in entry:
        try:
            return address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    named, _, suffix = entry.rpartition(":")
    if named and suffix.isdigit() and _address(entry) is None:
        entry = named.strip("[]")
        if int(suffix) != port:
            return False
    if address is not None:
        return _address(entry.strip("[]")) == address
    domain = entry.removeprefix("*").lstrip(".")
    return host == domain or host.endswith(f".{domain}")
