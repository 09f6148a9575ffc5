"""A bucket behind an HTTP proxy. The server has a name that only the proxy resolves, so nothing can go around it."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import forward_proxy, s3
from support.builders import OLD, contents, publish
from support.forward_proxy import ForwardProxy, proxy

from gog import store as stores
from gog.errors import UserError
from gog.spec import StoreSpec
from gog.store import connections, proxies
from gog.store import s3 as bucket
from gog.store.backend import MissingBlob

__all__ = ["proxy"]


@pytest.fixture
def prefix(tmp_path: Path) -> str:
    return f"{tmp_path.parent.name}/{tmp_path.name}"


@pytest.fixture
def secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[s3.Gateway]:
    with s3.secure_gateway(tmp_path, monkeypatch) as running:
        yield running


def behind(gateway: s3.Gateway, prefix: str, **fields: object) -> StoreSpec:
    """A store on a server that only the proxy can reach."""
    scheme = gateway.url.partition(":")[0]
    return gateway.spec(prefix, **{"endpoint_url": f"{scheme}://{forward_proxy.HOST}:{gateway.port}", **fields})


def round_trip(spec: StoreSpec, tmp_path: Path) -> None:
    """Publishes and fetches a file of several parts and a small one."""
    content = {"big": os.urandom(11 << 20), "small": b"x"}
    store = stores.open_store(spec, s3.IMPATIENT)
    folder = store.fetch(publish(store, 1, content), tmp_path / "copy")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == content


def test_http_requests_of_both_kinds_go_through_the_proxy(
    gateway: s3.Gateway, proxy: ForwardProxy, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "PART", 5 << 20)
    round_trip(behind(gateway, prefix), tmp_path)
    start = f"http://{forward_proxy.HOST}:{gateway.port}/{s3.BUCKET}"
    assert all(line.split(" ")[1].startswith(start) for line in proxy.requests)
    assert sum("partNumber=" in line for line in proxy.requests) == 3


def test_https_requests_of_both_kinds_go_through_a_tunnel(
    secure: s3.Gateway, proxy: ForwardProxy, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "PART", 5 << 20)
    round_trip(behind(secure, prefix, ca_bundle=str(tmp_path / "cert.pem")), tmp_path)
    assert {line.rpartition(" ")[0] for line in proxy.requests} == {f"CONNECT {forward_proxy.HOST}:{secure.port}"}
    assert len(proxy.requests) > 1, "boto3's connection, and connections of the store"


def test_a_proxy_that_requires_credentials_gets_those_of_its_address(
    gateway: s3.Gateway, proxy: ForwardProxy, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.user = "ada:p@ss word"
    monkeypatch.setenv("HTTP_PROXY", proxy.url("ada:p%40ss%20word"))
    round_trip(behind(gateway, prefix), tmp_path)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_refuses_the_credentials_is_the_users_to_correct_and_the_password_is_not_shown(
    request: pytest.FixtureRequest, proxy: ForwardProxy, prefix: str, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    server = request.getfixturevalue("gateway" if scheme == "http" else "secure")
    proxy.user = "ada:right"
    monkeypatch.setenv(f"{scheme.upper()}_PROXY", proxy.url("ada:wrong-password"))
    with pytest.raises(UserError, match="the proxy requires credentials") as caught:
        stores.open_store(behind(server, prefix), s3.IMPATIENT)
    assert "HTTPS_PROXY" in caught.value.remedy and "wrong-password" not in str(caught.value)
    assert len(proxy.requests) == 1, "not tried again"


def test_a_proxy_that_refuses_the_server_is_named(secure: s3.Gateway, proxy: ForwardProxy, prefix: str) -> None:
    proxy.status = 403
    with pytest.raises(UserError, match=r"the proxy refuses to connect to the server \(403\).*NO_PROXY"):
        stores.open_store(behind(secure, prefix), s3.IMPATIENT)


def test_a_server_that_does_not_speak_s3_is_named(gateway: s3.Gateway, proxy: ForwardProxy, prefix: str) -> None:
    proxy.status = 404
    with pytest.raises(UserError, match=r"does not know the bucket's address .*store\.endpointUrl"):
        stores.open_store(behind(gateway, prefix), s3.IMPATIENT)


@pytest.mark.parametrize("status", [502, 503, 504])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_cannot_reach_the_server_is_waited_for(
    request: pytest.FixtureRequest, proxy: ForwardProxy, prefix: str, scheme: str, status: int
) -> None:
    server, pauses = request.getfixturevalue("gateway" if scheme == "http" else "secure"), [0.0]
    patience = stores.Patience(budget=1.0, sleep=pauses.append, clock=lambda: sum(pauses))
    proxy.status = status
    with pytest.raises(stores.Unavailable):
        stores.open_store(behind(server, prefix), patience)
    assert len(proxy.requests) > 1


def test_a_proxy_that_rewrites_etags_is_refused_at_the_start(
    gateway: s3.Gateway, proxy: ForwardProxy, prefix: str
) -> None:
    proxy.replaced = (b'ETag: "', b'ETag: "-')
    with pytest.raises(UserError, match=r"the ETag of an object changes on its way .*NO_PROXY"):
        stores.open_store(behind(gateway, prefix), s3.IMPATIENT)


def test_a_server_that_is_excluded_is_reached_directly(
    gateway: s3.Gateway, proxy: ForwardProxy, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxies, "_is_local", lambda host: False)
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/8,127.0.0.0/8")
    round_trip(gateway.spec(prefix), tmp_path)
    assert proxy.requests == []


def test_a_loopback_server_is_reached_directly(
    gateway: s3.Gateway, proxy: ForwardProxy, prefix: str, tmp_path: Path
) -> None:
    round_trip(gateway.spec(prefix), tmp_path)
    assert proxy.requests == []


@pytest.mark.parametrize(
    ("endpoint", "address"),
    [
        ("http://s3.gog.test:81/", "http://s3.gog.test:81/ckpt/run/"),
        ("http://s3.gog.test:81/base", "http://s3.gog.test:81/base/ckpt/run/"),
        ("http://s3.gog.test:81/base/", "http://s3.gog.test:81/base/ckpt/run/"),
    ],
)
def test_requests_of_both_kinds_have_the_same_address(
    gateway: s3.Gateway, proxy: ForwardProxy, endpoint: str, address: str, tmp_path: Path
) -> None:
    proxy.status = 404
    backend = bucket.S3Backend(gateway.spec("run", endpoint_url=endpoint), s3.BUCKET, "run", s3.IMPATIENT)
    blob = stores.Blob(hash="0" * 64, size=3)
    assert backend.read("latest/sft") is None
    with pytest.raises(MissingBlob):
        backend.fetch_blob(blob, tmp_path / "blob")
    assert proxy.requests == [f"GET {address}latest/sft HTTP/1.1", f"GET {address}{blob.key} HTTP/1.1"]


def test_a_body_of_many_bytes_may_take_its_time_in_a_proxy_that_buffers() -> None:
    one, other = socket.socketpair()
    with one, other:
        connections.allow(one, 64 << 20)
        seconds, _ = struct.unpack("ll", one.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16))
    assert seconds == connections.ANSWER_SECONDS + 64


# ---- the environment


@pytest.mark.parametrize(
    ("environment", "url", "port"),
    [
        ({"HTTPS_PROXY": "http://proxy:1"}, "https://s3.example.org", 1),
        ({"https_proxy": "http://proxy:2", "HTTPS_PROXY": "http://proxy:1"}, "https://s3.example.org", 2),
        ({"HTTP_PROXY": "proxy:3"}, "http://s3.example.org:9000", 3),
        ({"ALL_PROXY": " http://proxy:4/ "}, "https://s3.example.org", 4),
        ({"HTTP_PROXY": "http://proxy"}, "http://s3.example.org", 80),
        ({"HTTP_PROXY": "http://proxy:1"}, "https://s3.example.org", None),
        ({"HTTPS_PROXY": "http://proxy:1"}, "https://127.0.0.1:9000", None),
        ({"HTTPS_PROXY": "http://proxy:1"}, "https://localhost:9000", None),
        ({}, "https://s3.example.org", None),
    ],
)
def test_the_proxy_is_that_of_the_scheme(environment: dict[str, str], url: str, port: int | None) -> None:
    found = proxies.of(url, environment)
    assert (found.port if found else None) == port


@pytest.mark.parametrize(
    ("no_proxy", "excluded"),
    [
        ("*", True),
        ("example.org", True),
        (".example.org", True),
        ("*.example.org", True),
        ("s3.example.org:9000", True),
        ("other, S3.Example.ORG ", True),
        ("s3.example.org:9001", False),
        ("ample.org", False),
        ("", False),
    ],
)
def test_a_name_is_excluded_by_name_domain_or_port(no_proxy: str, excluded: bool) -> None:
    environment = {"HTTP_PROXY": "http://proxy:1", "NO_PROXY": no_proxy}
    assert (proxies.of("http://s3.example.org:9000", environment) is None) == excluded


@pytest.mark.parametrize(
    ("no_proxy", "excluded"),
    [
        ("10.0.0.0/8", True),
        ("10.1.2.3", True),
        ("10.1.2.3:9000", True),
        ("10.1.2.3:1", False),
        ("10.1.0.0/24", False),
        (".1.2.3", False),
        ("10.0.0.0/99", False),
    ],
)
def test_an_address_is_excluded_by_itself_or_its_range(no_proxy: str, excluded: bool) -> None:
    environment = {"HTTP_PROXY": "http://proxy:1", "NO_PROXY": no_proxy}
    assert (proxies.of("http://10.1.2.3:9000", environment) is None) == excluded


@pytest.mark.parametrize("host", ["judge.research.svc", "judge.research.svc.cluster.local", "localhost", "127.0.0.1"])
def test_a_service_of_the_cluster_and_this_machine_are_never_proxied(host: str) -> None:
    environment = {"HTTP_PROXY": "http://proxy:1"}
    assert proxies.of(f"http://{host}", environment) is None
    assert proxies.of(f"http://{host}.example.org", environment) is not None


def test_an_ipv6_address_is_excluded_by_its_range() -> None:
    environment = {"HTTP_PROXY": "http://proxy:1", "NO_PROXY": "fd00::/8"}
    assert proxies.of("http://[fd00::7]:9000", environment) is None
    assert proxies.of("http://[2001:db8::7]:9000", environment) is not None


@pytest.mark.parametrize("address", ["https://proxy:1", "socks5://user:secret@proxy:1", "http://", "http://proxy:port"])
def test_a_proxy_that_is_not_an_http_address_is_refused_without_its_password(address: str) -> None:
    with pytest.raises(UserError, match="HTTPS_PROXY: the proxy for https:// is not an http:// address") as caught:
        proxies.of("https://s3.example.org", {"HTTPS_PROXY": address})
    assert "secret" not in str(caught.value)


def test_the_password_of_a_proxy_is_not_in_its_representation() -> None:
    found = proxies.of("http://s3.example.org", {"HTTP_PROXY": "http://ada:secret@proxy:1"})
    assert found is not None and "secret" not in repr(found)


def test_what_was_published_before_is_found_through_a_proxy(
    gateway: s3.Gateway, proxy: ForwardProxy, prefix: str
) -> None:
    publish(stores.open_store(gateway.spec(prefix), s3.IMPATIENT), 1, OLD)
    store = stores.open_store(behind(gateway, prefix), s3.IMPATIENT)
    assert contents(store, store.latest("sft")) == OLD
