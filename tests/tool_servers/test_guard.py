"""The guarded HTTP client: what it reaches, and how much of an answer it reads."""

from __future__ import annotations

import gzip
import ipaddress
import time
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import forward_proxy, hostile
from support.tcp_server import TcpServer

from gog.errors import UserError
from gog_tools.fetch import addresses, guard

proxy = forward_proxy.proxy
SHORT = guard.Limits(max_bytes=1_000_000, seconds=0.5)


# ---- addresses


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.100.100.200"),
        *("192.0.0.192", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "168.63.129.16"),
        *("::", "::1", "::127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "fe80::1", "fe80::1%1", "fc00::1"),
        *("::ffff:8.8.8.8%1", "2600::1%1"),
        *("fd00:ec2::254", "ff02::1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1", "2002:a9fe:a9fe::", "2002:7f00:1::"),
        *("2002:a9fe:a9fe::5efe:808:808", "fd00:ec2::5efe:808:808", "fe80::200:5efe:808:808", "ff02::5efe:808:808"),
        *("2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1", "3fff::1", "2600::5efe:10.0.0.1", "100::1"),
    ],
)
def test_an_address_that_is_not_public_is_refused_however_it_is_wrapped(address):
    assert "not a public address" in addresses.fault(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "172.32.0.1", "::ffff:8.8.8.8", "64:ff9b::808:808", "2606:4700::1111"])
def test_a_public_address_is_accepted_also_in_the_forms_that_networks_make(address):
    assert not addresses.fault(ipaddress.ip_address(address))


@given(st.ip_addresses(v=4))
def test_wrapping_an_address_never_makes_it_public(inner):
    for prefix in ("::ffff:0:0", "64:ff9b::", "2600::5efe:0:0"):
        wrapped = ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) | int(inner))
        assert addresses.is_public(wrapped) == addresses.is_public(inner)
    assert not addresses.is_public(ipaddress.IPv6Address((0x2002 << 112) | (int(inner) << 80)))


INTERNAL_PREFIXES = [
    "::",
    "2002:a9fe:a9fe::",
    "fd00:ec2::",
    "fe80::",
    "64:ff9b::",
    "64:ff9b:1::",
    "ff02::",
    "2001:db8::",
]
ISATAP = st.sampled_from([0x5EFE, 0x0200_5EFE])


@given(st.sampled_from(INTERNAL_PREFIXES), ISATAP, st.ip_addresses(v=4))
def test_an_isatap_address_is_refused_for_its_prefix_whatever_it_carries(prefix, mark, inner):
    wrapped = ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) | mark << 32 | int(inner))
    assert not addresses.is_public(wrapped)
    anywhere = guard.networks(["0.0.0.0/0"], "allow")
    assert "not a public address" in addresses.fault(wrapped, allow=anywhere)


@given(ISATAP, st.ip_addresses(v=4))
def test_an_allowed_prefix_does_not_allow_what_an_isatap_address_carries(mark, inner):
    allow = guard.networks(["fd00:ec2::/32"], "allow")
    wrapped = ipaddress.IPv6Address(int(ipaddress.IPv6Address("fd00:ec2::")) | mark << 32 | int(inner))
    assert bool(addresses.fault(wrapped, allow=allow)) == (not addresses.is_public(inner))


def test_a_denied_network_wins_over_an_allowed_one():
    allow, deny = guard.networks(["10.0.0.0/8"], "allow"), guard.networks(["10.9.0.0/16"], "deny")
    assert not addresses.fault(ipaddress.ip_address("10.1.1.1"), allow=allow, deny=deny)
    assert addresses.fault(ipaddress.ip_address("::ffff:10.9.1.1"), allow=allow, deny=deny)


def test_a_network_that_is_none_is_refused_with_the_options_name():
    with pytest.raises(UserError, match=r"--options deny"):
        guard.networks(["10.0.0.1/8"], "deny")


# ---- URLs


@pytest.mark.parametrize(
    "url",
    [
        *("http://2130706433/", "http://0x7f000001/", "http://0x7f.1/", "http://0177.0.0.1/", "http://127.1/"),
        *("http://127.0.0.01/", "http://0/", "http://1.1.1.1./", "http://①②⑦.⓪.⓪.①/", "http://127。0。0。1/"),
        *("http://１２７.0.0.1/", "http://%31%32%37.0.0.1/", "http://[::ffff:7f00:1]/", "http://[fe80::1%25eth0]/"),
        *("http://[fe80::1%eth0]/", "http://[::1", "http://user@example.org/", "http://a:b@example.org/"),
        *("http://example.org\\@127.0.0.1/", "http://exa mple.org/", "http://example.org/\r\nX: y", "http://-a.com/"),
        *("http://example.org:22/", "http://example.org:8080/", "http://example.org:99999/", "ftp://example.org/"),
        *("file:///etc/passwd", "gopher://example.org/", "data:text/html,x", "javascript:alert(1)", "//example.org/"),
        *("http:///x", "", "x", "http://localhost/", "http://localhost./", "http://kubernetes/", "http://a.svc/"),
        *(
            "http://a.default.svc.cluster.local/",
            "http://metadata.google.internal/",
            "http://a..b/",
            "http://é\x00.org/",
        ),
        "http://example.org/" + "a" * 3_000,
    ],
)
def test_a_url_of_another_form_or_place_is_refused_before_it_is_resolved(url):
    with pytest.raises(guard.Blocked):
        guard.Rules().check(url)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://example.org", "example.org"),
        ("https://example.org:443/a?b=c#d", "example.org"),
        ("https://bücher.de/", "xn--bcher-kva.de"),
        ("http://1.1.1.1/", "1.1.1.1"),
        ("http://127.0.0.1.example.org/", "127.0.0.1.example.org"),
        ("http://[2606:4700::1111]/", "2606:4700::1111"),
    ],
)
def test_a_url_of_a_public_host_is_accepted(url, host):
    assert guard.Rules().check(url).raw_host == host


# ---- where connections go


def name_page(port, resolve, path="/"):
    return hostile.fetch(port, lambda client: client.page(f"http://a.example:{port}{path}", SHORT), resolve)


def test_the_connection_goes_to_the_address_that_was_checked():
    asked = []
    answers = hostile.names(a=[hostile.PUBLIC, hostile.INTERNAL])

    async def resolve(host):
        asked.append(host)
        return await answers(host)

    with TcpServer(hostile.sends(hostile.response(b"hello"))) as server:
        assert name_page(server.port, resolve).body == b"hello"
        assert asked == ["a.example"]  # once: an answer that changes afterwards is never seen
        with pytest.raises(guard.Blocked, match="not a public address"):
            name_page(server.port, resolve)


@pytest.mark.parametrize("answer", ["127.0.0.2", "127.0.0.1,10.0.0.1", "::1", "64:ff9b::a9fe:a9fe", "fe80::1%1"])
def test_a_name_with_an_internal_address_is_refused_without_a_connection(answer):
    opened = []
    with TcpServer(opened.append) as server, pytest.raises(guard.Blocked, match="not a public address"):
        name_page(server.port, hostile.names(a=[answer]))
    assert not opened


@pytest.mark.parametrize(
    "target",
    [
        *("http://169.254.169.254/latest/meta-data/", "http://127.0.0.2:{port}/", "http://[::ffff:127.0.0.2]:{port}/"),
        *("//127.0.0.2:{port}/", "http://2130706434:{port}/", "http://b.example:{port}/", "file:///etc/passwd", ""),
        *("http://x:y@127.0.0.1:{port}/", "http://127.0.0.1:22/"),
    ],
)
def test_a_redirect_is_checked_like_the_first_url(target):
    paths = []

    def serve(connection):
        paths.append(connection.recv(1 << 16).split(b" ")[1])
        location = target.format(port=server.port)
        connection.sendall(hostile.response(b"", "302 Found", location=location))

    resolve = hostile.names(a=[hostile.PUBLIC], b=[hostile.INTERNAL])
    with TcpServer(serve) as server, pytest.raises(guard.Blocked):
        name_page(server.port, resolve)
    assert paths == [b"/"]


def test_redirects_within_the_rules_are_followed_and_end():
    answers = {
        "/": hostile.response(b"", "301 Moved", location="/next?x=1"),
        "/next?x=1": hostile.response(b"arrived"),
        "/loop": hostile.response(b"", "302 Found", location="/loop"),
    }
    assert hostile.page(hostile.by_path(answers)).body == b"arrived"
    with pytest.raises(guard.Blocked, match="redirects"):
        hostile.page(hostile.by_path(answers), "/loop")


def test_a_name_that_does_not_resolve_may_be_tried_again():
    with pytest.raises(guard.Unreachable, match=r"b\.example: the name does not resolve"):
        hostile.fetch(80, lambda client: client.page("http://b.example/", SHORT), hostile.names())


def test_pages_go_through_the_proxy_of_the_environment_and_stay_checked(proxy):
    with TcpServer(hostile.sends(hostile.response(b"by proxy"))) as server:
        environment = {"HTTP_PROXY": proxy.url()}
        url = f"http://a.example:{server.port}/"

        def get(answer):
            resolve = hostile.names(a=[answer]) if answer else hostile.names()
            return hostile.fetch(server.port, lambda client: client.page(url, SHORT), resolve, **environment)

        assert get("").body == b"by proxy" and get(hostile.PUBLIC).body == b"by proxy"
        with pytest.raises(guard.Blocked):
            get(hostile.INTERNAL)


# ---- what is read of an answer


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", lambda data: zlib.compress(data)[2:-4]),
        ("gzip", lambda data: gzip.compress(data[:3]) + gzip.compress(data[3:])),
        ("identity", bytes),
    ],
)
def test_a_body_is_decoded(encoding, pack):
    text = b"some text, " * 1_000
    assert hostile.page(hostile.sends(hostile.response(pack(text), content_encoding=encoding))).body == text


def test_a_gzip_bomb_is_refused_at_the_decoded_limit():
    bomb = hostile.gzip_of(50 << 20)
    assert len(bomb) < 100_000
    with pytest.raises(guard.Blocked, match="more than 1,000,000 bytes"):
        hostile.page(hostile.sends(hostile.response(bomb, content_encoding="gzip")))


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (gzip.compress(b"x" * 1_000, mtime=0)[:-12], "gzip"),  # without the time, for one name in every process
        (b"no gzip at all", "gzip"),
        (b"no deflate either", "deflate"),
        (b"x", "br"),
        (gzip.compress(gzip.compress(b"x", mtime=0), mtime=0), "gzip, gzip"),
    ],
)
def test_a_body_in_a_damaged_or_other_encoding_is_refused(body, encoding):
    with pytest.raises(guard.Blocked):
        hostile.page(hostile.sends(hostile.response(body, content_encoding=encoding)))


ENDLESS = {
    "a body": (hostile.response(b"", content_length=""), b"x" * 65_536),
    "a chunked body": (
        hostile.response(b"", content_length="", transfer_encoding="chunked"),
        b"10000\r\n" + b"x" * 65_536 + b"\r\n",
    ),
    "members of gzip that hold nothing": (
        hostile.response(b"", content_length="", content_encoding="gzip"),
        gzip.compress(b"") * 2_000,
    ),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"x-header: value\r\n" * 500),
    "one header": (b"HTTP/1.1 200 OK\r\nx-header: ", b"y" * 65_536),
    "a status line": (b"HTTP/1.1 200 ", b"y" * 65_536),
    "a size of a chunk": (hostile.response(b"", content_length="", transfer_encoding="chunked"), b"0" * 65_536),
    "trailers": (
        hostile.response(b"", content_length="", transfer_encoding="chunked") + b"0\r\n",
        b"x-trailer: value\r\n" * 500,
    ),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_an_endless_answer_ends_at_a_bound(what):
    with pytest.raises((guard.Blocked, guard.Unreachable)):
        hostile.page(hostile.repeats(*ENDLESS[what]), limits=guard.Limits(max_bytes=1_000_000, seconds=2.0))


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nx: ", hostile.response(b"", content_length="1000000")])
def test_an_answer_that_drips_ends_at_the_deadline_of_the_whole(head):
    started = time.monotonic()
    with pytest.raises(guard.Unreachable, match=r"within 0\.5 s"):
        hostile.page(hostile.repeats(head, b"H", pause=0.05), limits=SHORT)
    assert time.monotonic() - started < 5


def test_the_deadline_covers_all_redirects_together():
    slow = hostile.sends(b"", hostile.response(b"", "302 Found", location="/"), pause=0.2)
    with pytest.raises(guard.Unreachable, match=r"within 0\.5 s"):
        hostile.page(slow, limits=SHORT)


@pytest.mark.parametrize("kind", ["application/octet-stream", "image/png", "application/pdf", "", "text/html2"])
def test_an_answer_of_another_content_type_is_not_read(kind):
    endless = hostile.repeats(hostile.response(b"", content_type=kind, content_length=""), b"x" * 65_536)
    with pytest.raises(guard.Blocked, match="content type"):
        hostile.page(endless)


@pytest.mark.parametrize("answer", [b"", b"garbage\r\n\r\n", b"HTTP/9.9 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\n"])
def test_an_answer_that_is_no_http_may_be_tried_again(answer):
    with pytest.raises(guard.Unreachable):
        hostile.page(hostile.sends(answer))


def test_errors_name_the_host_but_neither_path_nor_query():
    with TcpServer(hostile.sends(b"")) as server:
        url = f"http://{hostile.PUBLIC}:{server.port}/secret-path?api_key=secret-key"
        for call in (lambda client: client.page(url, SHORT), lambda client: client.api("GET", url, limits=SHORT)):
            with pytest.raises(guard.Unreachable) as caught:
                hostile.fetch(server.port, call)
            assert hostile.PUBLIC in str(caught.value) and "secret" not in str(caught.value)


# ---- APIs of vendors


def test_an_api_may_lie_at_any_address_but_its_redirects_are_not_followed():
    redirect = hostile.response(b"", "302 Found", location="http://127.0.0.1/")
    with TcpServer(hostile.by_path({"/": hostile.response(b"{}"), "/moved": redirect})) as server:
        url = f"http://localhost:{server.port}"
        limits = guard.Limits(types=())
        assert hostile.fetch(1, lambda client: client.api("GET", f"{url}/", limits=limits)).body == b"{}"
        with pytest.raises(guard.Blocked, match="answers with a redirect"):
            hostile.fetch(1, lambda client: client.api("GET", f"{url}/moved", limits=limits))


def test_a_file_of_authorities_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(UserError, match="SSL_CERT_FILE"):
        guard.tls_context({"SSL_CERT_FILE": str(tmp_path / "ca.pem")})
