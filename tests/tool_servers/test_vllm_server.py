"""`gog serve policy --runtime vllm`: the command line of vLLM, and how its readiness, signals and exit are passed on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gog import vllm_options
from gog.errors import UserError
from gog_tools.policy import vllm_server

TOY = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
    def log_message(self, *_): pass
print("toy", os.environ["VLLM_ALLOW_RUNTIME_LORA_UPDATING"], *sys.argv[1:], flush=True)
if "--fail" in sys.argv: sys.exit("no memory")
http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


def start(tmp_path: Path, **options: object) -> tuple[subprocess.Popen[str], Path]:
    toy = tmp_path / "toy.py"
    toy.write_text(TOY)
    ready = tmp_path / "ready.json"
    line = [sys.executable, "-m", "gog_tools.policy.server", "--runtime", "vllm", "--model", "tiny"]
    line += ["--ready-file", str(ready), "--options", json.dumps(options)]
    environment = os.environ | {"GOG_VLLM_PROGRAM": f"{sys.executable} {toy}"}
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment), ready


def test_the_server_becomes_vllm_and_is_ready_when_health_answers(tmp_path):
    process, ready = start(tmp_path, **{"gpu-memory-utilization": 0.5})
    deadline = time.monotonic() + 120
    while not ready.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    url = json.loads(ready.read_text())["url"]
    process.send_signal(signal.SIGTERM)
    assert process.wait() == -signal.SIGTERM, "signals reach vLLM itself"
    words = process.stdout.read().split()
    assert words[:3] == ["toy", "True", "serve"] and url.endswith(words[words.index("--port") + 1])
    assert words[words.index("--gpu-memory-utilization") + 1] == "0.5"
    assert words[words.index("--logprobs-mode") + 1] == "processed_logprobs" and "--enable-scale-out" in words


def test_a_vllm_that_cannot_start_ends_with_its_own_exit_code_and_words(tmp_path):
    process, ready = start(tmp_path, fail=True)
    assert process.wait() == 1 and "no memory" in process.stderr.read() and not ready.exists()


def test_options_become_flags_values_or_json():
    options = {"enforce-eager": True, "enable-prefix-caching": False, "mm-processor-kwargs": {"max_pixels": 9}}
    line = vllm_options.arguments("/model", "127.0.0.1", 8000, options | {"max-loras": 4})
    assert line[:2] == ["serve", "/model"] and "--enforce-eager" in line and "--enable-prefix-caching" not in line
    assert line[line.index("--mm-processor-kwargs") + 1] == '{"max_pixels": 9}'
    assert line[line.index("--max-loras") + 1] == "4"


def test_an_option_that_a_run_depends_on_cannot_be_changed():
    with pytest.raises(UserError, match=r"options.logprobs-mode: must be 'processed_logprobs' \(leave it out\)"):
        vllm_options.arguments("/model", "127.0.0.1", 8000, {"logprobs-mode": "raw_logprobs"})


def test_a_missing_program_is_named_with_the_variable_that_names_it():
    with pytest.raises(UserError, match=r"GOG_VLLM_PROGRAM: no program /nowhere \(install vLLM"):
        vllm_server.program({"GOG_VLLM_PROGRAM": "/nowhere --flag"})


def test_a_judge_takes_no_adapters_and_has_its_own_name():
    line = vllm_options.arguments("/model", "0.0.0.0", 8080, {"max-model-len": 4096}, role="judge")
    assert line[-4:] == ["--served-model-name", "judge", "--max-model-len", "4096"]
    assert "--enable-lora" not in line and "--enable-scale-out" not in line
