"""A bucket as a store: what is refused at the start, retried and detected.

Against a real server; where a test needs a failure, behind a proxy that fails on demand.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import ports, s3
from support.builders import NEW, OLD, contents, publish
from support.s3_proxy import Proxy

from gog import store as stores
from gog.errors import UserError
from gog.store import Store, faults
from gog.store import s3 as bucket


@pytest.fixture
def prefix(tmp_path: Path) -> str:
    return f"{tmp_path.parent.name}/{tmp_path.name}"


@pytest.fixture
def store(gateway: s3.Gateway, prefix: str) -> Store:
    return stores.open_store(gateway.spec(prefix), s3.IMPATIENT)


def folder_of(gateway: s3.Gateway, prefix: str) -> Path:
    return gateway.folder / s3.BUCKET / prefix


# ---- what is refused at the start


def test_a_bucket_that_is_missing_is_named(gateway: s3.Gateway) -> None:
    spec = gateway.spec("run").model_copy(update={"uri": "s3://absent/run"})
    with pytest.raises(
        UserError, match=r"^s3://absent: no such bucket \(create it, or correct its name in the address\)$"
    ):
        stores.open_store(spec, s3.IMPATIENT)


@pytest.mark.parametrize(
    ("key", "secret", "sentence"),
    [
        (s3.ACCESS, "wrong", "the server refuses the credentials: SignatureDoesNotMatch"),
        ("unknown", "wrong", "the server refuses the credentials: XAdminUserNotFound"),  # the code of versitygw
    ],
)
def test_wrong_credentials_are_distinguished_from_missing_permissions(
    gateway: s3.Gateway, prefix: str, monkeypatch: pytest.MonkeyPatch, key: str, secret: str, sentence: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    with pytest.raises(UserError, match=sentence) as caught:
        stores.open_store(gateway.spec(prefix), s3.IMPATIENT)
    assert "store.secretName" in caught.value.remedy


def test_missing_credentials_are_reported(gateway: s3.Gateway, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    with pytest.raises(UserError, match="Unable to locate credentials"):
        stores.open_store(gateway.spec(prefix), s3.IMPATIENT)


def test_a_server_that_does_not_answer_is_unavailable_and_no_user_error(gateway: s3.Gateway) -> None:
    spec = gateway.spec("run").model_copy(update={"endpoint_url": f"http://127.0.0.1:{ports.free(1)[0]}"})
    with pytest.raises(stores.Unavailable, match=r"s3://ckpt at http://127.0.0.1:.* can this machine reach it"):
        stores.open_store(spec, stores.Patience(budget=0.0))


def test_without_boto3_the_remedy_is_a_command(
    gateway: s3.Gateway, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(UserError, match=r"pip install 'gog\[s3\]'"):
        stores.open_store(gateway.spec(prefix), s3.IMPATIENT)


@pytest.mark.parametrize("stray", ["\n", " ", "\r\n"])
def test_white_space_around_keys_region_and_addresses_is_dropped(
    gateway: s3.Gateway, prefix: str, monkeypatch: pytest.MonkeyPatch, stray: str
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, stray + os.environ[name] + stray)
    spec = gateway.spec(prefix, region=f"us-east-1{stray}", endpoint_url=f"{gateway.url}/{stray}")
    store = stores.open_store(spec.model_copy(update={"uri": f"{spec.uri}/{stray}"}), s3.IMPATIENT)
    assert contents(store, publish(store, 1, OLD)) == OLD
    assert (folder_of(gateway, prefix) / "manifests").is_dir()


def test_the_region_may_be_left_out(gateway: s3.Gateway, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    store = stores.open_store(gateway.spec(prefix, region=None), s3.IMPATIENT)
    assert contents(store, publish(store, 1, OLD)) == OLD


# ---- TLS


@pytest.fixture
def secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[s3.Gateway]:
    """An S3 server whose certificate only `ca_bundle` can vouch for."""
    with s3.secure_gateway(tmp_path, monkeypatch) as running:
        yield running


@pytest.mark.parametrize("variable", ["store.caBundle", "AWS_CA_BUNDLE"])
def test_a_ca_bundle_that_is_not_a_pem_file_is_refused_by_name(
    gateway: s3.Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("not a certificate")
    spec = gateway.spec("run", ca_bundle=str(path) if variable.startswith("store") else None)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(path))
    with pytest.raises(UserError, match=rf"{variable}: .*ca\.pem: not a PEM file"):
        stores.open_store(spec, s3.IMPATIENT)


def test_a_certificate_that_is_not_trusted_is_refused_and_its_authority_can_be_named(
    secure: s3.Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"certificate is not trusted \(name its authority's PEM file in store\.caBun"):
        stores.open_store(secure.spec("run"), s3.IMPATIENT)
    with pytest.raises(UserError, match=r"store\.caBundle: .*absent\.pem: no such file"):
        stores.open_store(secure.spec("run", ca_bundle=str(tmp_path / "absent.pem")), s3.IMPATIENT)
    monkeypatch.setattr(bucket, "PART", 5 << 20)
    content = {"big": os.urandom(11 << 20), "small": b"x"}
    store = stores.open_store(secure.spec("run", ca_bundle=str(tmp_path / "cert.pem")), s3.IMPATIENT)
    assert contents(store, publish(store, 1, content)) == content


# ---- preconditions


@pytest.mark.parametrize("method", [b"PUT", b"GET"])
def test_a_lost_answer_does_not_make_the_probe_fail(gateway: s3.Gateway, prefix: str, method: bytes) -> None:
    with Proxy(gateway) as proxy:
        seen: set[bytes] = set()
        proxy.fail_when(lambda request: _is_new(request, seen) and request.startswith(method), Proxy.lose, times=1000)
        stores.open_store(proxy.spec(prefix), s3.IMPATIENT)
        assert proxy.failed > 0


def _is_new(request: bytes, seen: set[bytes]) -> bool:
    """Whether a request was not seen before, apart from what changes with each attempt."""
    headers = request.split(b"\r\n")
    key = b"\n".join([headers[0], *(each for each in headers if each.lower().startswith((b"if-", b"x-amz-checksum")))])
    return key not in seen and not seen.add(key)


@pytest.mark.parametrize("header", ["If-None-Match", "If-Match"])
def test_a_server_that_ignores_preconditions_is_refused(
    gateway: s3.Gateway, prefix: str, monkeypatch: pytest.MonkeyPatch, header: str
) -> None:
    with Proxy(gateway) as proxy:
        proxy.ignored = header.lower().encode()
        with pytest.raises(UserError, match=f"the server ignores {header} .*two writers would overwrite"):
            stores.open_store(proxy.spec(prefix), s3.IMPATIENT)
    assert not list((folder_of(gateway, prefix) / ".probe").glob("*"))


def test_a_store_is_probed_once_per_process(
    gateway: s3.Gateway, prefix: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket.S3Backend, "probe", lambda self: pytest.fail("probed again"))
    stores.open_store(gateway.spec(prefix), s3.IMPATIENT)


# ---- parts


def test_a_large_file_is_sent_in_parts_and_read_back_unchanged(
    gateway: s3.Gateway, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "PART", 5 << 20)
    content = {"exact": os.urandom(10 << 20), "more": os.urandom((10 << 20) + 1), "empty": b""}
    manifest = publish(store, 1, content)
    folder = store.fetch(manifest, tmp_path / "copy")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == content
    store.check(manifest)


def test_a_publication_that_fails_leaves_no_upload_behind(
    gateway: s3.Gateway, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "PART", 5 << 20)
    with Proxy(gateway) as proxy:
        store = stores.open_store(proxy.spec(prefix), stores.Patience(budget=0.0))
        proxy.fail_when(lambda request: b"partNumber=2" in request, Proxy.reset, times=1000)
        with pytest.raises(stores.Unavailable):
            publish(store, 1, {"big": os.urandom(11 << 20)})
        assert not store.backend.client.call("list_multipart_uploads", Prefix=store.backend.prefix).get("Uploads")
        assert store.latest("sft") is None


def test_an_existing_blob_is_not_sent_again(gateway: s3.Gateway, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(store, 1, OLD)
    monkeypatch.setattr(store.backend.client, "send", lambda *_: pytest.fail("sent again"))
    assert publish(store, 2, OLD).step == 2


def test_an_old_blob_is_sent_again_because_a_sweep_may_delete_it(
    gateway: s3.Gateway, prefix: str, store: Store
) -> None:
    manifest = publish(store, 1, OLD)
    path = folder_of(gateway, prefix) / manifest.files["adapter.safetensors"].key
    os.utime(path, (0, 0))
    publish(store, 2, OLD)
    assert path.stat().st_mtime > 0


# ---- corruption


@pytest.mark.parametrize("damaged", [b"OLD", b"ol", b"older", b""], ids=["a flipped bit", "short", "long", "empty"])
def test_a_corrupt_object_is_detected_and_the_remedy_repairs_it(
    gateway: s3.Gateway, prefix: str, store: Store, tmp_path: Path, damaged: bytes
) -> None:
    manifest = publish(store, 3, OLD)
    key = manifest.files["adapter.safetensors"].key
    with (folder_of(gateway, prefix) / key).open("r+b") as stream:  # in place: the server's notes of it stay
        stream.truncate()
        stream.write(damaged)
    with pytest.raises(UserError, match=r"adapter\.safetensors' of checkpoint sft/3 is corrupt") as caught:
        store.fetch(manifest, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    assert caught.value.where == f"s3://{s3.BUCKET}/{prefix}/{key}"
    assert caught.value.remedy.startswith(f"delete it and s3://{s3.BUCKET}/{prefix}/{manifest.key}, then `gog resume`")
    store.backend.delete(key)
    store.backend.delete(manifest.key)
    assert contents(store, publish(store, 3, OLD)) == OLD


def test_a_deleted_blob_is_detected(gateway: s3.Gateway, store: Store, tmp_path: Path) -> None:
    manifest = publish(store, 3, OLD)
    store.backend.delete(manifest.files["adapter.safetensors"].key)
    with pytest.raises(UserError, match="is missing"):
        store.fetch(manifest, tmp_path / "copy")
    with pytest.raises(UserError, match="is missing"):
        store.check(manifest)


def test_a_part_with_a_byte_flipped_in_transit_is_fetched_again(gateway: s3.Gateway, prefix: str) -> None:
    with Proxy(gateway) as proxy:
        store = stores.open_store(proxy.spec(prefix), s3.IMPATIENT)
        manifest = publish(store, 1, {"weights": b"a" * 1000})
        proxy.fail_when(lambda request: request.startswith(b"GET") and b"/blobs/" in request, Proxy.flip)
        assert contents(store, manifest) == {"weights": b"a" * 1000}
        assert proxy.failed == 1


# ---- faults


FAULTS = ["answer429", "answer500", "answer503", "reset", "cut"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_checkpoint_is_published_and_fetched_although_every_request_fails_once(
    gateway: s3.Gateway, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(bucket, "PART", 5 << 20)
    content = {"big": os.urandom(6 << 20), **OLD}
    with Proxy(gateway) as proxy:
        store = stores.open_store(proxy.spec(prefix), s3.IMPATIENT)
        seen: set[bytes] = set()

        def first_time(request: bytes) -> bool:
            line = request.split(b" HTTP/1.1")[0].partition(b"uploadId")[0]
            return line not in seen and not seen.add(line)

        proxy.fail_when(first_time, getattr(Proxy, fault), times=1000)
        manifest = publish(store, 1, content)
        store.fetch(manifest, tmp_path / "copy")
        assert contents(store, store.latest("sft")) == content
        assert proxy.failed == len(seen) > 10


def test_a_lost_answer_does_not_make_a_commit_fail(gateway: s3.Gateway, prefix: str) -> None:
    with Proxy(gateway) as proxy:
        store = stores.open_store(proxy.spec(prefix), s3.IMPATIENT)
        proxy.fail_when(lambda request: request.startswith(b"PUT") and b"/manifests/" in request, Proxy.lose)
        assert publish(store, 1, OLD).step == 1
        assert proxy.failed == 1 and contents(store, store.latest("sft")) == OLD


def test_an_outage_longer_than_the_budget_is_reported_with_its_length() -> None:
    now, pauses = [0.0], []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += seconds

    patience = stores.Patience(budget=30.0, sleep=sleep, clock=lambda: now[0], draw=lambda: 1.0)

    def never() -> None:
        raise faults.Refusal(503, "SlowDown", "later")

    with pytest.raises(stores.Unavailable, match="not served within 30 s: SlowDown"):
        patience.tries(never, "s3://bucket")
    assert pauses == sorted(pauses) and pauses[-1] <= 10.0 and 15 < sum(pauses) <= 30


def test_retry_after_is_honoured() -> None:
    pauses: list[float] = []
    patience = stores.Patience(budget=30.0, sleep=pauses.append, clock=lambda: 0.0, draw=lambda: 0.0)
    answers = [faults.Refusal(503, "SlowDown", "", retry_after=7.0), None]

    def operation() -> str:
        if (answer := answers.pop(0)) is not None:
            raise answer
        return "done"

    assert patience.tries(operation, "") == "done"
    assert 7.0 <= pauses[0] <= 7.2


@pytest.mark.parametrize(
    ("status", "code", "sentence"),
    [
        (403, "AccessDenied", "no permission (AccessDenied)"),
        (403, "RequestTimeTooSkewed", "this machine's clock is wrong"),
        (400, "AuthorizationHeaderMalformed", "the bucket is in another region"),
        (400, "KMS.DisabledException", "the key cannot be used"),
        (507, "", "the store is full"),
        (501, "NotImplemented", "the server refuses"),
    ],
)
def test_every_refusal_has_its_message_and_remedy(status: int, code: str, sentence: str) -> None:
    refusal = faults.Refusal(status, code, "as the server says")
    assert not refusal.transient
    error = faults.explained(refusal, "s3://bucket/key")
    assert isinstance(error, UserError) and error.remedy and sentence in str(error)


def test_a_permanent_refusal_is_not_retried(gateway: s3.Gateway, prefix: str) -> None:
    with Proxy(gateway) as proxy:
        store = stores.open_store(proxy.spec(prefix), s3.IMPATIENT)
        proxy.fail_when(lambda request: b"/blobs/" in request, Proxy.answer403, times=1000)
        with pytest.raises(UserError, match="no permission"):
            publish(store, 1, NEW)
        assert proxy.failed == 1


def test_every_request_that_writes_names_the_encryption_key(
    gateway: s3.Gateway, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "PART", 5 << 20)
    with Proxy(gateway) as proxy:
        seen: list[bytes] = []
        proxy.fail_when(lambda request: bool(seen.append(request)), Proxy.reset)
        store = stores.open_store(proxy.spec(prefix, kms_key_id="key-7"), s3.IMPATIENT)
        publish(store, 1, {"big": os.urandom(6 << 20), **OLD})
    named = {b"x-amz-server-side-encryption-aws-kms-key-id: key-7", b"x-amz-server-side-encryption: aws:kms"}
    for request in seen:
        line = request.split(b"\r\n")[0]
        writes = (line.startswith(b"PUT") and b"partNumber" not in line) or b"?uploads" in line
        assert writes == all(header in request for header in named), line


# ---- a proxy that fails
