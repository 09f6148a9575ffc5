"""`gog tools check`: against servers that exist, and against those that it starts in front of vendors."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support import encoders, loopback, s3
from support.loopback import PATHS, responds
from support.ready_files import await_file
from support.vendors import FACT, KEY, Vendors

from gog_console import cli

EXAMPLES = Path(__file__).parents[3] / "examples"
VENDOR_KEYS = ("SERPAPI_API_KEY", "BRAVE_API_KEY", "JINA_API_KEY", "OPENAI_API_KEY", "JUDGE_GOG_API_KEY")


@pytest.fixture
def serve():
    """serve(handlers): the address of tools that work but for these."""
    with loopback.in_a_thread() as start:
        yield start


@pytest.fixture
def check(tmp_path, capsys):
    """check(endpoints, *arguments): exit code and output for a run with these endpoints."""

    def run(endpoints, *arguments, **spec):
        body = {"model": {"base": "tiny"}, "data": {"world": {"train": 8, "test": 4}}, "endpoints": endpoints, **spec}
        document = {"apiVersion": "gog.dev/v1alpha1", "kind": "GoGRun", "metadata": {"name": "r"}, "spec": body}
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump(document))
        return cli.main(["tools", "check", str(path), *arguments]), capsys.readouterr().out

    return run


def existing(url):
    return {tool: {"url": url} for tool in PATHS}


def test_tools_that_work_are_listed_and_the_exit_code_is_zero(serve, check):
    code, out = check(existing(serve()))
    assert code == 0 and out.count(" ok ") == 5 and "5 servers answer" in out
    assert "answer: 5 pages; first: page 0" in out and "Yes to a correct answer" in out


def test_a_key_that_is_missing_is_the_user_s_to_correct(serve, check):
    code, out = check(existing(serve({"judge": [responds(b"", 401)]})))
    assert code == 2 and "FAILED" in out
    assert "remedy: put the key into the environment variable JUDGE_GOG_API_KEY" in out


def test_a_server_that_is_down_may_come_back(serve, check):
    code, out = check(existing(serve({"textSearch": [responds(b"", 503)]})))
    assert code == 1 and "1 of 5 cannot be used; this may pass; check again later" in out


@pytest.mark.parametrize("option", [("-o", "json"), ("--json",)])
def test_the_outcome_is_there_for_programs(serve, check, option):
    code, out = check(existing(serve({"judge": [responds(b"", 402)]})), *option)
    report = json.loads(out)
    assert (code, report["outcome"]) == (2, "failed")
    rows = {row["name"]: row for row in report["tools"]}
    assert set(rows) == set(PATHS) and rows["judge"]["problem"]["kind"] == "no_credit" and rows["grounding"]["ok"]


def test_grounding_is_not_called_where_no_stage_gazes(serve, check):
    off = {stage: {"gaze": "off"} for stage in ("curate", "stratify", "grpo", "evaluate")}
    code, out = check(existing(serve({"grounding": [responds(b"", 500)]})), stages=off)
    assert code == 0 and "grounding" not in out


def test_a_run_that_replays_a_recording_has_nothing_to_check(check):
    code, out = check({}, tools={"cache": {"mode": "replay-strict", "path": "answers.sqlite"}})
    assert code == 0 and "nothing to check" in out


def test_a_stage_is_no_run(tmp_path, capsys):
    path = tmp_path / "stage.yaml"
    path.write_text("{apiVersion: gog.dev/v1alpha1, kind: ToolServer, metadata: {name: e}, spec: {role: judge}}")
    assert cli.main(["tools", "check", str(path)]) == 2 and "is a ToolServer" in capsys.readouterr().err


def test_in_a_pod_the_outcome_is_the_termination_message(serve, tmp_path, monkeypatch, capsys):
    message, config = tmp_path / "message", tmp_path / "config.yaml"
    monkeypatch.setenv("GOG_TERMINATION_LOG", str(message))
    refusing = serve({"judge": [responds(b"", 403)]})
    body = {"endpoints": {"judge": refusing}, "secrets": {"judge": "judge-key"}, "onCluster": True}
    config.write_text(json.dumps(body))
    assert cli.main(["tools", "check", "--config", str(config)]) == 0
    left = json.loads(message.read_text())
    assert left["outcome"] == "failed" and "GOG_API_KEY of the Secret judge-key" in left["message"]


# ---- servers that are started, in front of vendors


@pytest.fixture
def vendors(monkeypatch):
    for name in VENDOR_KEYS:
        monkeypatch.setenv(name, KEY)
    with Vendors() as running:
        yield running


def web_search(vendors, engine):
    """A text search by an engine, Jina's reader and a model, and a judge by the same model's vendor."""
    path = {"brave": "brave/web"}.get(engine, engine)
    reader = {"kind": "jina", "key_variable": "JINA_API_KEY", "url": f"{vendors.url}/jina"}
    reader |= {"allow": ["127.0.0.1/32"], "ports": [vendors.port]}
    model = {"kind": "openai", "url": f"{vendors.url}/v1", "model": "m", "key_variable": "OPENAI_API_KEY"}
    return {"backend": engine, "options": {"url": f"{vendors.url}/{path}", "reader": reader, "summariser": model}}


@pytest.fixture
def example(tmp_path):
    """example(name, change): an example of the repository whose spec was changed, as a file."""

    def write(name, change):
        document = yaml.safe_load((EXAMPLES / name).read_text())
        change(document["spec"])
        document["spec"]["data"] = {"world": {"train": 8, "test": 4}}
        path = tmp_path / name
        path.write_text(yaml.safe_dump(document))
        return str(path)

    return write


@pytest.fixture
def own_search(vendors, tmp_path):
    """The address of gog's server in front of a SearXNG, started as the example says."""
    said = re.search(
        r"gog (serve text-search) --port \d+ (--backend searxng) --options", (EXAMPLES / "vendors.yaml").read_text()
    )
    assert said is not None
    options = json.dumps({"url": f"{vendors.url}/searxng"})
    ready = tmp_path / "ready"
    given = [*f"{said[1]} {said[2]}".split(), "--options", options, "--ready-file", str(ready)]
    process = subprocess.Popen([sys.executable, "-m", "gog_console", *given])
    try:
        yield await_file(ready, process)["url"]
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["serpapi", "brave", "searxng"])
def test_the_example_of_vendors_passes_in_front_of_fakes(
    engine, example, vendors, own_search, gateway, tmp_path, capsys
):
    def change(spec):
        endpoints, spec["tools"]["textSearch"]["fallback"]["url"] = spec["endpoints"], own_search
        lens = endpoints["imageSearch"]["options"]
        lens["store"] = gateway.spec(f"lens-{tmp_path.name}").model_dump(exclude_unset=True)
        lens["url"] = f"{vendors.url}/serpapi"
        lens["thumbnails"] |= {"allow": ["127.0.0.1/32"], "ports": [vendors.port]}
        shipped, fake = endpoints["textSearch"]["options"], web_search(vendors, engine)
        for part in ("reader", "summariser"):
            fake["options"][part] = shipped[part] | fake["options"][part]
        endpoints["textSearch"] = fake
        endpoints["judge"] |= {"url": vendors.url, "model": "judge-1"}

    assert cli.main(["tools", "check", example("vendors.yaml", change)]) == 0
    out = capsys.readouterr().out
    seconds = r" +ok +\d+\.\d{3} s +"
    assert re.search(rf"^grounding{seconds}free +gog/0\.1\.0 world$", out, re.M), out
    assert re.search(rf"^image search{seconds}0\.0150 USD +serpapi x1 +gog/0\.1\.0 serpapi-lens$", out, re.M), out
    assert re.search(rf"^text search{seconds}0\.0\d+ USD +{engine} x\d\d +gog/0\.1\.0 {engine}$", out, re.M), out
    assert re.search(rf"^judge{seconds}0\.0004 USD +\S.* judge-1-2026-01-01$", out, re.M), out
    assert "answer: 5 pages, 3 with thumbnails; first: Match 0" in out
    assert re.search(rf"answer: 5 pages; first: \S+ 0 · {vendors.url}/page/0 · .*{FACT[:20]}", out), out
    assert re.search(rf"^text search \(fallback\){seconds}free +searxng x1 +gog/0\.1\.0 searxng$", out, re.M), out
    assert "answer: Yes to a correct answer" in out and "5 servers answer, the slowest" in out
    (lens,) = [each for each in vendors.of("serpapi") if each.query["engine"] == "google_lens"]
    assert lens.fetched.startswith(b"\xff\xd8")
    assert {"serpapi", "jina", "v1", "thumbnail", {"brave": "brave"}.get(engine, engine)} <= {
        each.vendor for each in vendors.asked
    }
    prefix = gateway.folder / s3.BUCKET / f"lens-{tmp_path.name}"
    assert not [path for path in prefix.rglob("*") if path.is_file()]  # the crop is deleted


@pytest.mark.slow
def test_the_example_of_own_tools_passes_with_small_networks(example, tmp_path, capsys):
    from support import detector_folders  # imports torch

    photographs = tmp_path / "photos"
    photographs.mkdir()
    for name, path in list(encoders.photographs().items())[:5]:
        shutil.copy(path, photographs / f"{name}{path.suffix}")
    (tmp_path / "wiki").mkdir()
    (tmp_path / "wiki" / "hopper.md").write_text("# Grace Hopper\n\nGrace Hopper was an admiral who wrote compilers.\n")
    detector = detector_folders.grounding_dino(tmp_path / "dino")
    encoder = encoders.random_encoder("siglip", tmp_path / "siglip")
    build = ["index", "build", str(photographs), "--encoder", str(encoder), "--out", str(tmp_path / "photos.index")]
    assert cli.main(build) == 0

    def change(spec):
        endpoints = spec["endpoints"]
        endpoints["grounding"]["options"] = {"weights": str(detector), "threshold": 0.0, "text_threshold": 0.0}
        own = {"index": str(tmp_path / "photos.index"), "images": str(photographs)}
        endpoints["imageSearch"]["options"] |= own
        endpoints["textSearch"]["options"] |= {"documents": str(tmp_path / "wiki")}

    capsys.readouterr()
    code = cli.main(["tools", "check", example("own-tools.yaml", change)])
    out = capsys.readouterr().out
    assert code == 0 and "5 servers answer" in out, out
    for server in ("grounding-dino", "embeddings", "tantivy", "rapidocr", "match"):
        assert re.search(rf" ok +\d+\.\d{{3}} s +free +gog/0\.1\.0 {server}\b", out), out
    assert "pages, 3 with thumbnails; first: " in out and "1 page; first: Grace Hopper" in out


@pytest.mark.slow
def test_a_vendor_s_refusal_is_told_from_a_key_that_the_server_lacks(serve, check, vendors, monkeypatch):
    endpoints = {**existing(serve()), "textSearch": web_search(vendors, "brave")}
    monkeypatch.setenv("BRAVE_API_KEY", "wrong")
    code, out = check(endpoints)
    assert code == 2 and "its vendor refuses the server's key" in out
    monkeypatch.delenv("BRAVE_API_KEY")
    code, out = check(endpoints)
    assert code == 2 and "its server does not start" in out and "BRAVE_API_KEY is not set" in out
