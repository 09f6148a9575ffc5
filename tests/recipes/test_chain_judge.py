"""The judge of a stage is called with the model that the manifest names."""

from __future__ import annotations

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from support.chain_folders import copy_of

from gog.spec import CurateConfig, EvaluateConfig, GRPOConfig, StratifyConfig
from gog_recipes.curate import CurateRecipe
from gog_recipes.evaluate import EvaluateRecipe
from gog_recipes.grpo import GRPORecipe
from gog_recipes.stratify import StratifyRecipe


@pytest.fixture
def judge():
    """An OpenAI-compatible server that replies Yes: its URL, and the requests it got."""
    asked = []

    class Judge(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            reply = json.dumps({"choices": [{"message": {"role": "assistant", "content": "Yes"}}]}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_):
            """Logs nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("kind", "recipe", "settings"),
    [
        (CurateConfig, CurateRecipe, {"trajectories": 3, "teacher_accuracy": 1.0}),
        (StratifyConfig, StratifyRecipe, {"questions": 24, "rollouts": 4}),
        (GRPOConfig, GRPORecipe, {"levels": ["easy", "1", "2"], "questions_per_step": 8, "group_size": 2, "steps": 1}),
        (EvaluateConfig, EvaluateRecipe, {"policies": ["sft"], "questions": 12}),
    ],
)
def test_the_judge_is_called_with_the_model_that_was_named(
    chain, make, endpoints, judge, tmp_path, kind, recipe, settings
):
    url, asked = judge
    named = {"endpoints": {**endpoints, "judge": url}, "judge_model": "qwen3-32b", "stage": "judged"}
    made = recipe(make(kind, copy_of(chain, tmp_path), **named, **settings))
    made.setup()
    asyncio.run(made.curate() if kind is CurateConfig else made.train())
    assert {body["model"] for body in asked} == {"qwen3-32b"}
