"""A store in a bucket of an S3 server. `If-None-Match: *` makes a manifest appear; `If-Match` swaps the pointer.

Blobs go up and down in parts on several connections, each part with its CRC64NVME. Up, the server checks every part
and the whole, and keeps the checksum for a HEAD to compare. Down, the parts' checksums joined must be the manifest's.
An upload that fails is aborted; what a killed process leaves is aborted by the next sweep.
"""

from __future__ import annotations

import contextlib
import contextvars
import http.client
import mmap
import os
import tempfile
import urllib.parse
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from gog.errors import UserError
from gog.spec import StoreSpec
from gog.store import hashing
from gog.store.backend import Backend, CorruptBlob, Entry, MissingBlob, Unavailable, Value
from gog.store.client import Client
from gog.store.faults import Patience, Refusal
from gog.store.model import Blob

PART = 1 << 26
CONNECTIONS = 4
BUFFER = 1 << 18
"""Received at once: still in a core's own cache when checksum and write come. From 512 KiB on, ext4 takes large pages
for a write, and looking for them in fragmented memory costs more than all the rest."""
YOUNG = timedelta(minutes=15)
"""A blob that lies there longer is put again, for it might be about to be swept."""
COPIED_AT_ONCE = 5 << 30
"""S3's limit."""
IGNORES = (
    "use a server that keeps them (Amazon S3, versitygw, MinIO, Ceph), or file://: without them two writers would "
    "overwrite each other's checkpoints"
)
REWRITES = "a proxy between here and the server rewrites headers: exclude the server in NO_PROXY"


class S3Backend:
    """Backend over `s3://bucket/prefix`. Raises UserError where boto3 is not installed."""

    def __init__(self, spec: StoreSpec, bucket: str, prefix: str, patience: Patience) -> None:
        self.spec, self.bucket = spec, bucket
        self.prefix = f"{prefix}/" if prefix else ""
        self.client = Client(spec, bucket, patience)
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._encryption = (
            {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": spec.kms_key_id} if spec.kms_key_id else {}
        )

    def where(self, key: str = "") -> str:
        return self.client.where(self.prefix + key)

    # ---- the place

    def probe(self) -> None:
        try:
            answer = self.client.call("list_objects_v2", Prefix=self.prefix, MaxKeys=1)
        except Refusal as refusal:
            what = f"the server does not know the bucket's address ({refusal})"
            raise UserError(what, where=self.where(), remedy="is store.endpointUrl that of an S3 server?") from None
        home = answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region")
        if home and home != self.client.region and not self.spec.region:
            self.client.connect(home)
        key = f".probe/{uuid.uuid4().hex}"
        try:
            self._check_preconditions(key)
        finally:
            with contextlib.suppress(UserError, Unavailable):
                self.delete(key)

    def _check_preconditions(self, key: str) -> None:
        """Judges by content as well as by answers: an answer that was lost makes a second try fail."""
        self.put_if_absent(key, b"1")
        second = self.put_if_absent(key, b"2")
        stale = self.swap(key, b"3", '"d41d8cd98f00b204e9800998ecf8427e"')
        there = self.read(key)
        if second or there is None or there.data == b"2":
            raise UserError("the server ignores If-None-Match", where=self.where(), remedy=IGNORES)
        if stale or there.data == b"3":
            raise UserError("the server ignores If-Match", where=self.where(), remedy=IGNORES)
        if self.swap(key, b"4", there.version):
            return
        there = self.read(key)
        if there is None or there.data != b"4":
            raise UserError("the ETag of an object changes on its way", where=self.where(), remedy=REWRITES)

    # ---- small objects

    def read(self, key: str) -> Value | None:
        try:
            answer = self.client.call("get_object", self.prefix + key)
        except Refusal as refusal:
            _check_that_absent(refusal)
            return None
        return Value(answer["Body"], answer["ETag"])

    def put(self, key: str, data: bytes, content_type: str) -> None:
        self._put(key, data, ContentType=content_type)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        return self._put(key, data, IfNoneMatch="*")

    def swap(self, key: str, data: bytes, expected: str | None) -> bool:
        return self._put(key, data, **({"IfNoneMatch": "*"} if expected is None else {"IfMatch": expected}))

    def _put(self, key: str, data: bytes, **parameters: Any) -> bool:
        # Named in a header: boto3's own would follow the body in chunks, which some proxies do not pass on.
        checksum = hashing.encoded(hashing.crc_of(data))
        parameters = {"ContentType": "application/json", "ChecksumCRC64NVME": checksum, **parameters}
        try:
            self.client.call("put_object", self.prefix + key, Body=data, **self._encryption, **parameters)
        except Refusal:
            return False  # 412; or 404: what was to be swapped is gone
        return True

    def delete(self, key: str) -> None:
        self.client.call("delete_object", self.prefix + key)

    def entries(self, prefix: str) -> Iterator[Entry]:
        for page in self._pages("list_objects_v2", Prefix=self.prefix + prefix):
            for item in page.get("Contents", ()):
                yield Entry(item["Key"].removeprefix(self.prefix), item["Size"], item["LastModified"])

    def folders(self, prefix: str) -> list[str]:
        pages = self._pages("list_objects_v2", Prefix=self.prefix + prefix, Delimiter="/")
        names = (item["Prefix"] for page in pages for item in page.get("CommonPrefixes", ()))
        return sorted(name.removeprefix(self.prefix + prefix).rstrip("/") for name in names)

    def _pages(self, operation: str, **parameters: Any) -> Iterator[dict[str, Any]]:
        while True:
            page = self.client.call(operation, **parameters)
            yield page
            if not page.get("IsTruncated"):
                return
            parameters["ContinuationToken"] = page["NextContinuationToken"]

    # ---- blobs, up

    def put_blob(self, path: Path, blob: Blob) -> None:
        there = self._head(blob)
        if there and _same(there, blob) and there["LastModified"] > datetime.now(UTC) - YOUNG:
            return
        if blob.size <= PART:
            self.client.send(self.prefix + blob.key, "", self._headers(blob), memoryview(path.read_bytes()))
            return
        with self._upload(blob) as upload:
            self._complete(blob, upload, self._send_parts(blob, upload, _mapped(path)[: blob.size]))

    def _headers(self, blob: Blob) -> dict[str, str]:
        headers = {"x-amz-checksum-crc64nvme": str(blob.crc64nvme)}
        if self.spec.kms_key_id:
            headers["x-amz-server-side-encryption"] = "aws:kms"
            headers["x-amz-server-side-encryption-aws-kms-key-id"] = self.spec.kms_key_id
        return headers

    @contextlib.contextmanager
    def _upload(self, blob: Blob) -> Iterator[str]:
        checked = {"ChecksumAlgorithm": "CRC64NVME", "ChecksumType": "FULL_OBJECT"}
        key = self.prefix + blob.key
        upload = self.client.call("create_multipart_upload", key, **checked, **self._encryption)["UploadId"]
        try:
            yield upload
        except BaseException:
            with contextlib.suppress(UserError, Unavailable, Refusal):
                self.client.call("abort_multipart_upload", key, UploadId=upload)
            raise

    def _send_parts(self, blob: Blob, upload: str, view: memoryview) -> list[dict[str, Any]]:
        def send(number: int) -> dict[str, Any]:
            part = view[(number - 1) * PART : number * PART]
            checksum = hashing.encoded(hashing.crc_of(part))
            query = f"partNumber={number}&uploadId={urllib.parse.quote(upload, safe='')}"
            answer = self.client.send(self.prefix + blob.key, query, {"x-amz-checksum-crc64nvme": checksum}, part)
            return {"PartNumber": number, "ETag": answer["etag"], "ChecksumCRC64NVME": checksum}

        return _together(send, range(1, -(-blob.size // PART) + 1))

    def _complete(self, blob: Blob, upload: str, parts: list[dict[str, Any]]) -> None:
        checked = {"ChecksumCRC64NVME": blob.crc64nvme, "ChecksumType": "FULL_OBJECT"}
        key = self.prefix + blob.key
        try:
            self.client.call(
                "complete_multipart_upload", key, UploadId=upload, MultipartUpload={"Parts": parts}, **checked
            )
        except (Refusal, UserError):  # the answer to an earlier try, which succeeded, may have been lost
            if not _same(self._head(blob) or {}, blob):
                raise

    # ---- blobs, down

    def open_blob(self, blob: Blob) -> Path:
        if self._scratch is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="gog-store-")
        path = Path(self._scratch.name) / blob.hash
        if not path.exists():
            part = path.with_suffix(f".{uuid.uuid4().hex}")
            self.fetch_blob(blob, part)
            part.rename(path)
        return path

    def fetch_blob(self, blob: Blob, target: Path) -> None:
        known = blob.crc64nvme
        self._fetch(
            blob.key,
            blob.size,
            target,
            lambda crc: hashing.encoded(crc) == known if known else hashing.is_of(target, blob),
        )

    def fetch_object(self, entry: Entry, target: Path) -> None:
        """A plain object, of the listed size, and of its checksum where the server has kept one. Raises UserError."""
        there = self.client.call("head_object", self.prefix + entry.key, ChecksumMode="ENABLED")
        checksum = there.get("ChecksumCRC64NVME") if there.get("ChecksumType") != "COMPOSITE" else None
        try:
            self._fetch(entry.key, entry.size, target, lambda crc: checksum in (None, hashing.encoded(crc)))
        except (MissingBlob, CorruptBlob) as error:
            raise UserError("gone, changed or corrupt", where=str(error), remedy="upload it again") from None

    def _fetch(self, key: str, size: int, target: Path, whole: Callable[[int], bool]) -> None:
        for left in (1, 0):  # a second time, for what spoilt it may have been the way
            if whole(self._receive_parts(key, size, target)):
                return
            if not left:
                raise CorruptBlob(self.where(key))

    def _receive_parts(self, key: str, size: int, target: Path) -> int:
        """CRC64NVME of what was received."""
        with target.open("wb") as out:
            if size == 0:
                return 0
            handle = out.fileno()
            os.posix_fallocate(handle, 0, size)  # a disk that is too full says so now

            def receive(start: int) -> tuple[int, int]:
                length = min(PART, size - start)

                def take(response: http.client.HTTPResponse) -> int:
                    if _total(response) != size:
                        raise CorruptBlob(self.where(key))
                    return _take(response, handle, start, length)

                return self.client.receive(self.prefix + key, start, length, take), length

            try:
                return hashing.joined(_together(receive, range(0, size, PART)))
            except Refusal as refusal:
                raise (MissingBlob if refusal.status == 404 else CorruptBlob)(self.where(key)) from None

    def check_blob(self, blob: Blob) -> None:
        there = self._head(blob)
        if there is None:
            raise MissingBlob(self.where(blob.key))
        if not _same(there, blob):
            raise CorruptBlob(self.where(blob.key))

    def _head(self, blob: Blob) -> dict[str, Any] | None:
        try:
            return self.client.call("head_object", self.prefix + blob.key, ChecksumMode="ENABLED")
        except Refusal as refusal:
            _check_that_absent(refusal)
            return None

    # ---- blobs, from store to store and out

    def copy_blob(self, source: Backend, blob: Blob) -> bool:
        if not isinstance(source, S3Backend) or source.spec.endpoint_url != self.spec.endpoint_url:
            return False
        if blob.size > COPIED_AT_ONCE or blob.crc64nvme is None:
            return False
        origin = {"Bucket": source.bucket, "Key": source.prefix + blob.key}
        try:
            self.client.call(
                "copy_object",
                self.prefix + blob.key,
                CopySource=origin,
                ChecksumAlgorithm="CRC64NVME",
                **self._encryption,
            )
        except (UserError, Refusal):
            return False  # these credentials may not read there, or it is gone: reading it will tell
        there = self._head(blob)
        return there is not None and _same(there, blob)

    def remove_blob(self, digest: str, before: datetime) -> bool:
        blob = Blob(hash=digest, size=0)
        there = self._head(blob)
        if there is None or there["LastModified"] >= before:
            return False
        self.delete(blob.key)
        return True

    def tidy(self, before: datetime) -> None:
        found = self.client.call("list_multipart_uploads", Prefix=self.prefix + "blobs/").get("Uploads", ())
        for upload in found:
            if upload["Initiated"] < before:
                with contextlib.suppress(Refusal):
                    self.client.call("abort_multipart_upload", upload["Key"], UploadId=upload["UploadId"])
        for entry in self.entries(".probe/"):
            if entry.modified < before:
                self.delete(entry.key)


def _check_that_absent(refusal: Refusal) -> None:
    if refusal.status != 404:
        raise refusal


def _mapped(path: Path) -> memoryview:
    """A file's content without reading it. Unmapped with its last view, some of which a failure's traceback may hold."""
    with path.open("rb") as stream:
        return memoryview(mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ))


def _same(there: dict[str, Any], blob: Blob) -> bool:
    """Whether an object has a blob's size and, where both are known, its checksum."""
    checksum = there.get("ChecksumCRC64NVME")
    return there.get("ContentLength") == blob.size and (
        None in (checksum, blob.crc64nvme) or checksum == blob.crc64nvme
    )


def _together(work: Any, items: Any) -> list[Any]:
    """Results of work on all items, in order, several at a time. The first failure keeps the rest from starting."""
    with ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="store") as pool:
        futures = [pool.submit(contextvars.copy_context().run, work, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _total(response: http.client.HTTPResponse) -> int:
    """Size of the object of which an answer is a part."""
    total = response.getheader("Content-Range", "").rpartition("/")[2]
    if not total.isdigit():
        raise http.client.HTTPException("a part was asked for, something else came")
    return int(total)


def _take(response: http.client.HTTPResponse, handle: int, start: int, length: int) -> int:
    """Writes an answer's body at its place in a file; its CRC64NVME."""
    buffer, crc, done = memoryview(bytearray(BUFFER)), 0, 0
    while done < length:
        got = response.readinto(buffer[: length - done])
        if not got:
            raise http.client.IncompleteRead(b"", length - done)
        crc = hashing.crc_of(buffer[:got], crc)
        os.pwrite(handle, buffer[:got], start + done)
        done += got
    return crc
