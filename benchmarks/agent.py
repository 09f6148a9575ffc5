"""Measures the agent over a finished run: time to the first step of a chat, and many chats at once.

    python benchmarks/agent.py [--run runs/world] [--chats 32] [--rounds 3]

Starts `gog chat` over the run, asks held-out questions one after the other, and then so many at once, several times.
The first step of a chat is the first event with what the policy wrote. A chat failed if it has an error or no answer.
"""

from __future__ import annotations

import argparse
import base64
import concurrent.futures
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import outcome

from gog import dataset, stats
from gog.dataset import Question

GOAL_MS, ONE_BY_ONE = 200.0, 30


@dataclass(frozen=True)
class Chat:
    """One chat, as its client saw it."""

    first: float
    """Seconds to the first step."""
    whole: float
    """Seconds to the end."""
    answer: str
    """What it answered; empty where it failed."""
    right: bool
    """Whether that is an accepted answer."""


def ask(url: str, folder: Path, question: Question) -> Chat:
    """Asks one question, streamed with its trace."""
    data = base64.b64encode((folder / question.image).read_bytes()).decode()
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    messages = [{"role": "user", "content": [image, {"type": "text", "text": question.question}]}]
    body = json.dumps({"messages": messages, "stream": True, "trace": True}).encode()
    request = urllib.request.Request(f"{url}/v1/chat/completions", body, {"content-type": "application/json"})
    began, first, answer = time.perf_counter(), 0.0, ""
    with urllib.request.urlopen(request, timeout=300) as stream:
        for line in stream:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if "gog_step" in event and not first:
                first = time.perf_counter() - began
            for choice in event.get("choices", ()):
                answer += choice["delta"].get("content") or ""
    return Chat(first, time.perf_counter() - began, answer, answer in question.answers)


def measure(url: str, folder: Path, at_once: int, rounds: int) -> dict[str, float]:
    """The figures of an agent that runs."""
    questions = dataset.read_questions(folder, "test")
    ask(url, folder, questions[0])  # the connections are made by the first chat
    alone = [ask(url, folder, each) for each in questions[1 : 1 + ONE_BY_ONE]]
    together: list[Chat] = []
    began = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        for number in range(rounds):
            asked = [questions[(number * at_once + place) % len(questions)] for place in range(at_once)]
            together += pool.map(lambda each: ask(url, folder, each), asked)
    seconds = time.perf_counter() - began
    return {
        "first step, p50 ms": round(1e3 * stats.percentile([each.first for each in alone], 0.5), 1),
        "first step, p95 ms": round(1e3 * stats.percentile([each.first for each in alone], 0.95), 1),
        "a chat, p50 ms": round(1e3 * stats.percentile([each.whole for each in alone], 0.5), 1),
        "at once": at_once,
        "chats at once, per s": round(len(together) / seconds, 2),
        "chats at once, p95 ms": round(1e3 * stats.percentile([each.whole for each in together], 0.95), 1),
        "failed": sum(not each.answer for each in [*alone, *together]),
        "right, %": round(100 * stats.mean([float(each.right) for each in [*alone, *together]]), 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/world"))
    parser.add_argument("--chats", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    line = [sys.executable, "-m", "gog_console", "chat", given.run.name, "--dir", str(given.run.parent)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    chatting = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert chatting.stdout is not None
        said = chatting.stdout.readline()
        if "http://" not in said:
            raise SystemExit("the agent did not start; see the message above")
        url = said.partition(": ")[2].split()[0]
        found = measure(url, given.run / "data", given.chats, given.rounds)
    finally:
        chatting.send_signal(signal.SIGINT)
        chatting.wait()
    for name, value in found.items():
        print(f"{name:24} {value:>10}")
    goals = {
        f"first step <= {GOAL_MS:.0f} ms (p50)": found["first step, p50 ms"] <= GOAL_MS,
        f"no failed chat of {given.chats} at once": found["failed"] == 0,
    }
    return outcome.finish("agent", {"row": "a chat over the world", **found}, goals)


if __name__ == "__main__":
    sys.exit(main())
