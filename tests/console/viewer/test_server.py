"""Claims about the server: whom it answers, what it lets a page do, and that it reads nothing but archives."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import support.view_builders as viewers

from gog import store, trajectory_zip
from gog_console.viewer import sources
from gog_console.viewer.api import as_json
from gog_console.viewer.server import POLICY


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("view")
    kept = store.Store(folder / "store")
    viewers.publish(kept, [viewers.illustrated(n) for n in (1, 2, 3)], folder)
    with viewers.viewing(sources.of_store(kept, "x"), folder, reviews=folder / "reviews.jsonl") as serving:
        yield serving


PATHS = ["/", "/view.js", "/view.css", "/icon.svg", "/api/run", "/api/facets", "/api/list", "/api/absent", "/image/1/x"]


@pytest.mark.parametrize("path", PATHS)
def test_another_host_gets_nothing_whatever_key_it_has(viewer, path):
    port = viewer.server.port
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1.evil.example:{port}", "", None):
        reply = viewer.request(f"{path}?token=key", Host=host)
        assert reply.status == 421 and b"trajector" not in reply.body
    assert viewer.request(path, Host=f"localhost:{port}").status != 421


@pytest.mark.parametrize("path", PATHS)
def test_without_the_key_nothing_is_served(viewer, path):
    for cookie in (None, "", "gog-view=key", f"gog-view-{viewer.server.port}=wrong", "x" * 5000):
        assert viewer.request(path, Cookie=cookie).status == 403
    assert viewer.request("/api/list?token=key", Cookie=None).status == 403  # the key opens the page, nothing else


def test_the_printed_address_leaves_the_key_in_a_cookie_that_no_script_reads_and_no_other_site_sends(viewer):
    reply = viewer.request("/?token=key", Cookie=None)
    assert reply.status == 303 and reply.headers["Location"] == "/"
    assert {"HttpOnly", "SameSite=Strict"} <= set(reply.headers["Set-Cookie"].split("; "))
    assert viewer.request("/?token=wrong", Cookie=None).status == 403


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_forbids_foreign_content(viewer, path):
    for cookie in (viewer.headers["Cookie"], None):
        headers = viewer.request(path, Cookie=cookie).headers
        assert headers["Content-Security-Policy"] == POLICY
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Referrer-Policy"] == "no-referrer"
        assert "Access-Control-Allow-Origin" not in headers


def test_the_policy_allows_no_inline_script_style_or_other_origin(viewer):
    assert "unsafe" not in POLICY and "http" not in POLICY and "default-src 'none'" in POLICY
    html = viewer.request("/").body.decode()
    assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=|https?://", html)


def test_it_listens_on_loopback_only(viewer):
    assert viewer.server.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml", "/%2e%2e/etc/passwd", "/view.js/../../x", "/static/view.html", "/image/1/../../etc/passwd",
        "/image/1/%2e%2e%2f%2e%2e%2ftrajectories.jsonl", "/image/1/trajectories.jsonl", "/image/-1/" + "a" * 32,
        "/image/999/" + "a" * 32, "/image/1/" + "a" * 32 + "/../x", "/image//", "//evil.example/view.js", "/api/../api/run2",
    ],
)  # fmt: skip
def test_no_path_leads_out_of_the_archives(viewer, path):
    reply = viewer.request(path)
    assert reply.status in (400, 404) and set(json.loads(reply.body)) == {"error"}


def test_beside_a_jsonl_file_only_images_of_its_folder_are_read(tmp_path):
    (tmp_path / "secret.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 40)
    path = tmp_path / "lines" / "t.jsonl"
    (path.parent / "images").mkdir(parents=True)
    path.write_text(viewers.illustrated(1, image="../../secret").model_dump_json() + "\n")
    with viewers.viewing(sources.of_file(path), tmp_path) as viewer:
        assert viewer.request("/image/1/../../secret").status == 404
        assert viewer.json("/api/trajectory?id=" + viewer.ids()[0])["trajectory"]["images"] == {}


def test_images_are_served_unchanged_or_smaller_on_request(tmp_path):
    from support.builders import make_image

    from gog import images

    large = make_image(1, 2000, 1000)
    path = tmp_path / "a.zip"
    trajectory_zip.write(path, [viewers.illustrated(1, image=large.hash)], {large.hash: large})
    with viewers.viewing(sources.of_file(path), tmp_path) as viewer:
        found = viewer.json("/api/trajectory?id=" + viewer.ids()[0])["trajectory"]["images"][large.hash]
        assert (found["w"], found["h"]) == (2000, 1000)
        shown = images.decode(viewer.request(found["src"]).body)
        assert (shown.width, shown.height) == (1536, 768)
        thumb = viewer.request(viewer.json("/api/list")["rows"][0]["thumb"])
        assert thumb.headers["Content-Type"] == "image/webp" and images.decode(thumb.body).width == 96


def test_a_missing_trajectory_is_reported_in_one_sentence(viewer):
    assert viewer.request("/api/trajectory?id=absent").status == 404
    assert "absent" in json.loads(viewer.request("/api/trajectory?id=absent").body)["error"]


def test_numbers_that_json_cannot_carry_become_null():
    assert as_json({"a": [float("nan"), (1, float("-inf"))], "b": 2}).body == b'{"a":[null,[1,null]],"b":2}'


# ---- deciding


def post(viewer: viewers.Viewer, **headers):
    body = json.dumps({"trajectory": viewer.ids()[0], "decision": "accept"}).encode()
    given = {"Content_Type": "application/json", "Origin": f"http://127.0.0.1:{viewer.server.port}"}
    return viewer.request("/api/review", method="POST", body=body, **{**given, **headers})


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"}, {"Origin": None}, {"Origin": "null"}, {"Cookie": None}, {"Host": "evil.example"},
        {"Content_Type": "text/plain"}, {"Content_Length": str(10**9)}, {"Content_Length": "many"},
    ],
)  # fmt: skip
def test_only_the_page_itself_may_decide(viewer, headers):
    before = Path(viewer.server.api.reviews.path).read_bytes()
    assert post(viewer, **headers).status in (403, 404, 413)
    assert Path(viewer.server.api.reviews.path).read_bytes() == before


def test_other_methods_are_refused(viewer):
    for method in ("PUT", "DELETE", "PATCH", "TRACE", "OPTIONS"):
        assert viewer.request("/api/list", method=method).status == 501


def test_without_a_review_file_decisions_are_refused(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text(viewers.illustrated(1).model_dump_json() + "\n")
    with viewers.viewing(sources.of_file(path), tmp_path) as viewer:
        assert viewer.decide(trajectory=viewer.ids()[0], decision="accept").status == 409
        assert viewer.json("/api/run")["reviews"] is None
