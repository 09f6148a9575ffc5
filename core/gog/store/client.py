"""Requests to one bucket: small ones through boto3, parts of blobs through connections of our own.

Every request goes through `Client._attempt`: it is tried again within a budget, and its failure is classified in one
place. Parts of blobs bypass boto3 because it copies and hashes payloads on their way. Sent from mapped memory with
signed headers, an unsigned payload and a CRC64NVME that the server checks, they take a fifth of the time over plain
HTTP. Over TLS the same holds, and TLS protects the payload; in an untrusted network use https. Both kinds of request
go through the same proxy and trust the same authorities.
"""

from __future__ import annotations

import http.client
import os
import queue
import ssl
import urllib.parse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from xml.etree import ElementTree

from gog import api_keys, metrics
from gog.errors import UserError
from gog.spec import StoreSpec
from gog.store import connections, faults, hashing, proxies
from gog.store.faults import Refusal

Result = TypeVar("Result")

SLICE = 1 << 23
"""Bytes per system call."""
NEEDED = {"create_multipart_upload": "UploadId", "get_object": "ETag", "head_object": "LastModified"}
"""Fields that a complete answer to an operation has."""


class Client:
    """Requests to one bucket.

    Args:
        spec: address and options of the store.
        bucket: its name.
        patience: how long each request is retried.
    """

    def __init__(self, spec: StoreSpec, bucket: str, patience: faults.Patience) -> None:
        self.spec, self.bucket, self.patience = spec, bucket, patience
        self._idle: queue.LifoQueue[http.client.HTTPConnection] = queue.LifoQueue()
        self.connect(spec.region)

    def connect(self, region: str | None) -> None:
        """Sets up what depends on the bucket's region. Raises UserError for settings that cannot work."""
        hashing.required()
        try:
            import boto3
            from botocore.config import Config
        except ImportError:
            raise UserError("s3:// needs boto3", where=self.spec.uri, remedy="pip install 'gog[s3]'") from None
        session_region = (region or "").strip() or None
        self._session = boto3.Session(region_name=session_region, **api_keys.aws_credentials())
        self._context = self._trusted()
        config = Config(
            connect_timeout=connections.CONNECT_SECONDS,
            read_timeout=connections.ANSWER_SECONDS,
            retries={"total_max_attempts": 1},  # Patience retries, with one budget for everything
            signature_version="s3v4",  # of presigned addresses, too, which boto3 signs in an older way in one region
            s3={"addressing_style": "path" if self.spec.path_style else "auto"},
        )
        self._unsigned = Config(s3={"payload_signing_enabled": False})
        self._boto = self._boto_client(config)
        self._proxy = proxies.of(self._boto.meta.endpoint_url, os.environ)
        if proxies.named(os.environ):  # boto3 has rules of its own, without address ranges
            through = {"http": self._proxy.url, "https": self._proxy.url} if self._proxy else {}
            self._boto = self._boto_client(config.merge(Config(proxies=through)))
        self.region = self._boto.meta.region_name
        self._base = ""

    def _boto_client(self, config: Any) -> Any:
        return self._session.client(
            "s3",
            endpoint_url=(self.spec.endpoint_url or "").strip().rstrip("/") or None,
            region_name=(self._session.region_name or "").strip() or "us-east-1",
            verify=self.spec.ca_bundle,
            config=config,
        )

    def _trusted(self) -> ssl.SSLContext:
        """Trusts the authorities that boto3 trusts. Raises UserError for a file of authorities that cannot be read."""
        import botocore.httpsession

        configured = self._session._session.get_config_variable("ca_bundle")
        chosen = self.spec.ca_bundle or configured
        where = f"store.caBundle: {chosen}" if self.spec.ca_bundle else f"AWS_CA_BUNDLE: {chosen}"
        if chosen and not Path(chosen).is_file():
            raise UserError("no such file", where=where, remedy="name a PEM file")
        try:
            return ssl.create_default_context(cafile=chosen or botocore.httpsession.where())
        except (ssl.SSLError, OSError) as error:
            cause = getattr(error, "reason", None) or error.strerror
            raise UserError(f"not a PEM file: {cause}", where=where, remedy="name a PEM file of certificates") from None

    # ---- small requests

    def call(self, operation: str, key: str | None = None, **parameters: Any) -> dict[str, Any]:
        """A request through boto3.

        Args:
            operation: name of the method of boto3's client.
            key: object key; None for an operation on the bucket.
            parameters: of the operation, besides bucket and key.

        Returns:
            boto3's answer, its body read.

        Raises:
            Refusal: 404, 412 or 416.
            UserError: another answer that a retry would not change.
            Unavailable: no answer within the retry budget.
        """
        where = self.where(key or "")
        given = {"Bucket": self.bucket, **({} if key is None else {"Key": key}), **parameters}

        def once() -> dict[str, Any]:
            with faults.classified(where):
                answer = dict(getattr(self._boto, operation)(**given))
                if _is_cut(operation, answer):
                    raise http.client.IncompleteRead(b"")
                if "Body" in answer:
                    answer["Body"] = answer["Body"].read()  # here, so that a failure is retried too
                return answer

        return self._attempt(once, where)

    def presigned(self, key: str, seconds: int) -> str:
        """An address from which anyone can get an object for some seconds. Raises UserError for missing credentials."""
        with faults.classified(self.where(key)):
            given = {"Bucket": self.bucket, "Key": key}
            return str(self._boto.generate_presigned_url("get_object", Params=given, ExpiresIn=seconds))

    def where(self, key: str = "") -> str:
        """Address of a key, for messages."""
        return f"s3://{self.bucket}/{key}".rstrip("/")

    def _attempt(self, once: Callable[[], Result], where: str) -> Result:
        try:
            return self.patience.tries(once, self._named(where))
        except Refusal as refusal:
            raise faults.explained(refusal, where) from refusal

    def _named(self, where: str) -> str:
        return f"{where} at {self.spec.endpoint_url}" if self.spec.endpoint_url else where

    # ---- bytes

    def send(self, key: str, query: str, headers: Mapping[str, str], body: memoryview) -> Mapping[str, str]:
        """Puts bytes.

        Args:
            key: object key.
            query: query string, escaped; empty: none.
            headers: to sign and send.
            body: the bytes.

        Returns:
            Headers of the answer, in lower case.

        Raises:
            Refusal, UserError, Unavailable: as `call`.
        """
        where = self.where(key)

        def once() -> Mapping[str, str]:
            with faults.classified(where):
                return self._exchange("PUT", key, query, headers, body, _drain)

        answer = self._attempt(once, where)
        metrics.record_store_bytes(len(body))
        return answer

    def receive(self, key: str, start: int, length: int, into: Callable[[http.client.HTTPResponse], Result]) -> Result:
        """Gets a range of an object.

        Args:
            key: object key.
            start: first byte.
            length: number of bytes.
            into: reads the answer.

        Returns:
            The result of `into`.

        Raises:
            Refusal, UserError, Unavailable: as `call`; besides, what `into` raises.
        """
        where = self.where(key)

        def once() -> Result:
            with faults.classified(where):
                headers = {"Range": f"bytes={start}-{start + length - 1}"}
                return self._exchange("GET", key, "", headers, None, into, size=length)

        result = self._attempt(once, where)
        metrics.record_store_bytes(length)
        return result

    def _exchange(
        self,
        method: str,
        key: str,
        query: str,
        headers: Mapping[str, str],
        body: memoryview | None,
        take: Callable[[http.client.HTTPResponse], Result],
        size: int = 0,
    ) -> Result:
        url = self._url(key, query)
        signed = self._signed(method, url, headers)
        connection = self._connection(url)
        target = connections.request_target(url, self._proxy)
        try:
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in signed.items():
                connection.putheader(name, value)
            if self._proxy and url.startswith("http:"):
                for name, value in self._proxy.headers.items():
                    connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders()
            connections.allow(connection.sock, len(body) if body is not None else size)
            response = self._answer(connection, body)
            result = take(response)
            response.read()
        except BaseException:
            connection.close()
            raise
        self._idle.put(connection)
        return result

    def _answer(self, connection: http.client.HTTPConnection, body: memoryview | None) -> http.client.HTTPResponse:
        try:
            for start in range(0, len(body or b""), SLICE):
                connection.sock.sendall((body or b"")[start : start + SLICE])
        except (BrokenPipeError, ConnectionResetError):
            response = connection.getresponse()  # a server may refuse before it has read the body
            if response.status < 300:
                raise
        else:
            response = connection.getresponse()
        if response.status >= 300:
            raise _refusal(response)
        return response

    def _connection(self, url: str) -> http.client.HTTPConnection:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            pass
        return connections.connect(url, self._proxy, self._context)

    def _url(self, key: str, query: str) -> str:
        if not self._base:  # boto3 knows every form of address; a presigned one without its query is the object's
            with faults.classified(self.where()):
                example = self._boto.generate_presigned_url("get_object", Params={"Bucket": self.bucket, "Key": "k"})
            self._base = example.partition("?")[0].removesuffix("k")
        return self._base + urllib.parse.quote(key, safe="/-_.~") + (f"?{query}" if query else "")

    def _signed(self, method: str, url: str, headers: Mapping[str, str]) -> Mapping[str, str]:
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest

        credentials = self._session.get_credentials()
        request = AWSRequest(method=method, url=url, headers={**headers, "Host": urllib.parse.urlsplit(url).netloc})
        request.context["client_config"] = self._unsigned
        S3SigV4Auth(credentials, "s3", self.region).add_auth(request)
        return dict(request.headers.items())


def _is_cut(operation: str, answer: Mapping[str, Any]) -> bool:
    """Whether the connection broke within an answer's headers, which Python's http.client does not notice."""
    meta = answer["ResponseMetadata"]
    lengths = {"content-length", "transfer-encoding"} & meta["HTTPHeaders"].keys()
    return NEEDED.get(operation, "ResponseMetadata") not in answer or not (lengths or meta["HTTPStatusCode"] == 204)


def _drain(response: http.client.HTTPResponse) -> Mapping[str, str]:
    response.read()
    headers = {name.lower(): value for name, value in response.getheaders()}
    if not headers.get("etag"):
        raise http.client.IncompleteRead(b"")
    return headers


def _refusal(response: http.client.HTTPResponse) -> Refusal:
    text, after = response.read(1 << 16), response.getheader("Retry-After", "")
    code = message = ""
    try:
        for element in ElementTree.fromstring(text):
            name = element.tag.rpartition("}")[2]
            code = str(element.text) if name == "Code" else code
            message = str(element.text) if name == "Message" else message
    except ElementTree.ParseError:
        pass  # the HTML page of a proxy
    return Refusal(response.status, code, message, float(after) if after.isdigit() else 0.0)
