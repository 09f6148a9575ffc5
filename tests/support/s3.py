"""A real S3 server for tests: versitygw over a temporary folder, on loopback.

    gateway = s3.Gateway(folder); gateway.start(); ...; gateway.stop()

tests/cluster builds the program from Go modules the first time. Without Go, tests that need it are skipped with that
reason.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gog import store as stores
from gog.spec import StoreSpec
from support import forward_proxy, ports

ACCESS, SECRET, BUCKET = "gog-tests", "gog-tests-secret", "ckpt"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_EC2_METADATA_DISABLED": "true"}
IMPATIENT = stores.Patience(budget=5.0, base=0.01, cap=0.05)


@functools.cache
def program() -> Path:
    """Path of versitygw; skips the test if it can neither be found nor built."""
    cluster = Path(os.environ.get("GOG_CLUSTER", Path.home() / ".cache" / "gog-cluster"))
    found = cluster / "bin" / "versitygw"
    if not found.exists():
        if shutil.which("go") is None:
            pytest.skip("no S3 server: Go is not installed, so tests/cluster/build cannot make versitygw")
        subprocess.run(
            [Path(__file__).parents[1] / "cluster" / "build", "versitygw"], check=True, stdout=subprocess.DEVNULL
        )
    return found


class Gateway:
    """versitygw over a folder.

    Args:
        folder: each folder in it is a bucket.
        port: 0: a free one.
        options: further ones of `versitygw posix`.
        tls: options that name certificate and key; empty: plain HTTP.
    """

    def __init__(
        self, folder: Path, *, port: int = 0, options: tuple[str, ...] = (), tls: tuple[str, ...] = ()
    ) -> None:
        self.folder, self.port, self.options, self.tls = folder, port or ports.free(1)[0], options, tls
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        (folder / BUCKET).mkdir(parents=True, exist_ok=True)

    def start(self) -> Gateway:
        command = [program(), "--port", f"127.0.0.1:{self.port}", "--access", ACCESS, "--secret", SECRET]
        command += ["--quiet", "--keep-alive", *self.tls, "posix", *self.options, self.folder]
        log = (self.folder.parent / f"{self.folder.name}.log").open("wb")
        self.process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log)
        while not _listens(self.port):
            assert self.process.poll() is None, f"versitygw ended, see {log.name}"
            time.sleep(0.02)
        return self

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def spec(self, prefix: str, **fields: object) -> StoreSpec:
        """A store below a prefix of the bucket."""
        address = f"s3://{BUCKET}/{prefix}"
        return StoreSpec(uri=address, **{"endpoint_url": self.url, "path_style": True, "region": "us-east-1", **fields})


@pytest.fixture(scope="session")
def _gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    running = Gateway(tmp_path_factory.mktemp("s3") / "buckets").start()
    yield running
    running.stop()


@pytest.fixture
def gateway(_gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Gateway:
    """An S3 server, with its credentials in the environment. Shared by all tests of a session: use your own prefix."""
    monkeypatch.setenv("GOG_TEST_BUCKETS", str(_gateway.folder))
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return _gateway


@contextlib.contextmanager
def secure_gateway(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    """An S3 server with TLS. Only `folder`/cert.pem vouches for its certificate, for loopback and forward_proxy.HOST."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    names = f"subjectAltName=IP:127.0.0.1,DNS:{forward_proxy.HOST}"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    made += ["-subj", "/CN=gog", "-addext", names, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(made, check=True, capture_output=True)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    program()
    running = Gateway(folder / "buckets", tls=("--cert", str(certificate), "--key", str(key))).start()
    try:
        yield running
    finally:
        running.stop()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
