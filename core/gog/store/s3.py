"""A store in a bucket of an S3 server. `If-None-Match: *` commits a manifest; `If-Match` swaps the pointer.

Blobs are sent and fetched in parts on several connections, each part with its CRC64NVME. The server checks every part
and the whole of an upload, and keeps the checksum for HEAD requests. The combined checksums of a download must equal the
manifest's. A failed upload is aborted; what a killed process leaves is aborted by the next sweep.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import tempfile
import urllib.parse
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from gog.errors import UserError
from gog.spec import StoreSpec
from gog.store import hashing, parts
from gog.store.backend import Backend, CorruptBlob, Entry, MissingBlob, Unavailable, Value
from gog.store.client import Client
from gog.store.faults import Patience, Refusal
from gog.store.model import Blob

PART = 1 << 26
"""Bytes of a part."""
YOUNG = timedelta(minutes=15)
"""An older blob is put again, because a sweep may be about to delete it."""
COPIED_AT_ONCE = 5 << 30
"""Bytes that S3 copies in one request."""
IGNORES = (
    "use a server that keeps them (Amazon S3, versitygw, MinIO, Ceph), or file://: without them two writers would "
    "overwrite each other's checkpoints"
)
REWRITES = "a proxy between here and the server rewrites headers: exclude the server in NO_PROXY"


class S3Backend:
    """Backend over a prefix of a bucket.

    Args:
        spec: address and options.
        bucket: name of the bucket.
        prefix: without slashes at its ends; may be empty.
        patience: how long each request is retried.

    Raises:
        UserError: boto3 is not installed, or an option cannot work.
    """

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

    # ---- the server

    def probe(self) -> None:
        try:
            answer = self.client.call("list_objects_v2", Prefix=self.prefix, MaxKeys=1)
        except Refusal as refusal:
            what = f"the server does not know the bucket's address ({refusal})"
            raise UserError(
                what, where=self.where(), remedy="check that store.endpointUrl names an S3 server"
            ) from None
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
        """Checks content as well as responses, because a retry after a lost response fails."""
        self.put_if_absent(key, b"1")
        second = self.put_if_absent(key, b"2")
        stale = self.swap(key, b"3", '"d41d8cd98f00b204e9800998ecf8427e"')
        found = self.read(key)
        if second or found is None or found.data == b"2":
            raise UserError("the server ignores If-None-Match", where=self.where(), remedy=IGNORES)
        if stale or found.data == b"3":
            raise UserError("the server ignores If-Match", where=self.where(), remedy=IGNORES)
        if self.swap(key, b"4", found.version):
            return
        found = self.read(key)
        if found is None or found.data != b"4":
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
        if not self._put(key, data, ContentType=content_type):
            raise UserError(
                "the server refuses to store an object (404 or 412)",
                where=self.client.where(self.prefix + key),
                remedy="is it an S3 server that gog supports?",
            )

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
            return False  # 412; or 404: the object to swap was deleted
        return True

    def delete(self, key: str) -> None:
        self._delete(self.prefix + key)

    def delete_all(self, prefix: str) -> None:
        for page in self._pages("list_objects_v2", Prefix=self.prefix + prefix):
            parts.together(self._delete, [item["Key"] for item in page.get("Contents", ())])

    def _delete(self, key: str) -> None:
        self.client.call("delete_object", key)

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

    # ---- upload of blobs

    def put_blob(self, path: Path, blob: Blob) -> None:
        head = self._head(blob)
        if head and _same(head, blob) and head["LastModified"] > datetime.now(UTC) - YOUNG:
            return
        if blob.size <= PART:
            self.client.send(self.prefix + blob.key, "", self._headers(blob), memoryview(path.read_bytes()))
            return
        with self._upload(blob) as upload:
            self._complete(blob, upload, self._send_parts(blob, upload, parts.mapped(path)[: blob.size]))

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

        return parts.together(send, range(1, -(-blob.size // PART) + 1))

    def _complete(self, blob: Blob, upload: str, sent: list[dict[str, Any]]) -> None:
        checked = {"ChecksumCRC64NVME": blob.crc64nvme, "ChecksumType": "FULL_OBJECT"}
        key = self.prefix + blob.key
        try:
            self.client.call(
                "complete_multipart_upload", key, UploadId=upload, MultipartUpload={"Parts": sent}, **checked
            )
        except (Refusal, UserError):  # the answer to an earlier attempt, which succeeded, may have been lost
            if not _same(self._head(blob) or {}, blob):
                raise

    # ---- download of blobs

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
        """Fetches a plain object and verifies its size, and its checksum if the server has kept one.

        Args:
            entry: from a listing.
            target: file to write.

        Raises:
            UserError: it is gone, has changed, or is corrupt.
        """
        head = self.client.call("head_object", self.prefix + entry.key, ChecksumMode="ENABLED")
        checksum = head.get("ChecksumCRC64NVME") if head.get("ChecksumType") != "COMPOSITE" else None
        try:
            self._fetch(entry.key, entry.size, target, lambda crc: checksum in (None, hashing.encoded(crc)))
        except (MissingBlob, CorruptBlob) as error:
            raise UserError("gone, changed or corrupt", where=str(error), remedy="upload it again") from None

    def _fetch(self, key: str, size: int, target: Path, whole: Callable[[int], bool]) -> None:
        for left in (1, 0):  # twice, because it may have been corrupted in transit
            if whole(self._receive_parts(key, size, target)):
                return
            if not left:
                raise CorruptBlob(self.where(key))

    def _receive_parts(self, key: str, size: int, target: Path) -> int:
        """Fetches an object in parts; the CRC64NVME of what was received."""
        with target.open("wb") as out:
            if size == 0:
                return 0
            handle = out.fileno()
            os.posix_fallocate(handle, 0, size)  # a full disk fails here

            def receive(start: int) -> tuple[int, int]:
                length = min(PART, size - start)

                def take(response: http.client.HTTPResponse) -> int:
                    if parts.total_size(response) != size:
                        raise CorruptBlob(self.where(key))
                    return parts.write_body(response, handle, start, length)

                return self.client.receive(self.prefix + key, start, length, take), length

            try:
                return hashing.joined(parts.together(receive, range(0, size, PART)))
            except Refusal as refusal:
                raise (MissingBlob if refusal.status == 404 else CorruptBlob)(self.where(key)) from None

    def check_blob(self, blob: Blob) -> None:
        head = self._head(blob)
        if head is None:
            raise MissingBlob(self.where(blob.key))
        if not _same(head, blob):
            raise CorruptBlob(self.where(blob.key))

    def _head(self, blob: Blob) -> dict[str, Any] | None:
        try:
            return self.client.call("head_object", self.prefix + blob.key, ChecksumMode="ENABLED")
        except Refusal as refusal:
            _check_that_absent(refusal)
            return None

    # ---- copying and deleting blobs

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
            return False  # not allowed to read there, or gone: reading it reports which
        head = self._head(blob)
        return head is not None and _same(head, blob)

    def remove_blob(self, digest: str, before: datetime) -> bool:
        blob = Blob(hash=digest, size=0)
        head = self._head(blob)
        if head is None or head["LastModified"] >= before:
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


def _same(head: dict[str, Any], blob: Blob) -> bool:
    """Whether an object has a blob's size and, if both are known, its checksum."""
    checksum = head.get("ChecksumCRC64NVME")
    return head.get("ContentLength") == blob.size and (None in (checksum, blob.crc64nvme) or checksum == blob.crc64nvme)
