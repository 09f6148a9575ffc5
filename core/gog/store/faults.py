"""Classifies errors of S3 servers, proxies and the network: retry, report to the user, or leave to the caller.

Refusal        the server answered with an error; a caller may expect some (404, 412)
Unavailable    no answer, or one that asks to retry: 429, 5xx, resets, time-outs, names that do not resolve
UserError      credentials, permissions, buckets, regions, certificates, keys, proxies: a retry would not help
"""

from __future__ import annotations

import contextlib
import http.client
import random
import re
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from gog import metrics
from gog.errors import UserError
from gog.store.backend import Unavailable

Result = TypeVar("Result")

TRANSIENT = {
    *("RequestTimeout", "RequestTimeoutException", "SlowDown", "InternalError", "ServiceUnavailable", "Throttling"),
    *(
        "ThrottlingException",
        "RequestLimitExceeded",
        "TooManyRequests",
        "BandwidthLimitExceeded",
        "PriorRequestNotComplete",
    ),
    *("ConditionalRequestConflict", "OperationAborted", "BadDigest", "XAmzContentChecksumMismatch", "IncompleteBody"),
}
CREDENTIALS = {
    *("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"),
    *("InvalidSecurity", "AuthorizationQueryParametersError", "UnrecognizedClientException", "XAdminUserNotFound"),
}
REGION = {
    "PermanentRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "TemporaryRedirect",
}
EXPECTED = {404, 412, 416}
"""Status codes that only the caller can interpret."""


class Refusal(Exception):
    """The server answered with an error.

    Args:
        status: HTTP status code.
        code: S3 error code; empty if the answer has none.
        message: the server's message.
        retry_after: seconds that the server asks to wait.
    """

    def __init__(self, status: int, code: str, message: str, retry_after: float = 0.0) -> None:
        super().__init__(f"{code or status}: {message}")
        self.status, self.code, self.message, self.retry_after = status, code, message, retry_after

    @property
    def transient(self) -> bool:
        """Whether a retry may succeed."""
        return self.status == 429 or (self.status >= 500 and self.status not in (501, 507)) or self.code in TRANSIENT


@dataclass(frozen=True)
class Patience:
    """How long one request is retried, with exponential back-off and jitter."""

    budget: float = 120.0
    """Seconds after which no retry begins."""
    base: float = 0.2
    """First pause, in seconds."""
    cap: float = 10.0
    """Longest pause, in seconds, unless the server asks for more."""
    sleep: Callable[[float], None] = time.sleep
    """Waits for seconds."""
    clock: Callable[[], float] = time.monotonic
    """Time in seconds."""
    draw: Callable[[], float] = random.random
    """Jitter, uniform in [0, 1)."""

    def tries(self, operation: Callable[[], Result], where: str) -> Result:
        """The result of an operation, retried until it succeeds, is refused for good, or the budget is spent.

        Args:
            operation: one attempt; raises Refusal or Unavailable.
            where: address, for messages.

        Raises:
            Refusal: one that a retry would not change.
            Unavailable: the budget is spent.
        """
        deadline, wait = self.clock() + self.budget, self.base
        while True:
            try:
                return operation()
            except Refusal as refusal:
                if not refusal.transient:
                    raise
                error: Exception = refusal
                least = refusal.retry_after
            except Unavailable as trouble:
                error, least = trouble, 0.0
            pause = least + wait * (0.5 + self.draw() / 2)
            if self.clock() + pause > deadline:
                raise Unavailable(
                    f"{where}: not served within {self.budget:g} s: {error} "
                    "(is the address right, is the server running, can this machine reach it?)"
                ) from error
            metrics.record_store_retry()
            self.sleep(pause)
            wait = min(2 * wait, self.cap)


@contextlib.contextmanager
def classified(where: str) -> Iterator[None]:
    """Turns the exceptions of boto3 and sockets into Refusal, Unavailable and UserError. where: address, for messages."""
    from botocore import exceptions as aws
    from botocore.parsers import ResponseParserError

    try:
        yield
    except aws.ClientError as error:
        raise refusal_of(error.response) from error
    except (aws.NoCredentialsError, aws.PartialCredentialsError, aws.CredentialRetrievalError) as error:
        raise _credentials(str(error).rstrip("."), where) from None
    except (aws.SSLError, ssl.SSLError) as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise _untrusted(where) from None
        raise Unavailable(str(error)) from error
    except aws.ProxyConnectionError as error:
        raise _of_tunnel(error, where, error.kwargs.get("error", "")) from None
    except (aws.ConnectionError, aws.HTTPClientError, aws.IncompleteReadError, http.client.HTTPException) as error:
        raise Unavailable(f"{type(error).__name__}: {error}") from error
    except ResponseParserError as error:  # half a page, or a proxy's
        raise Unavailable(f"{type(error).__name__}: {error}") from error
    except Unavailable:
        raise
    except OSError as error:  # of a socket: those of a disk occur where the file is made
        raise _of_tunnel(error, where) from error


def _of_tunnel(error: Exception, where: str, cause: object = "") -> Exception:
    """What a failed connection means. http.client and urllib3 report a proxy's answer to CONNECT as text only."""
    found = re.search(r"Tunnel connection failed: (\d{3})", f"{error} {cause}")
    status = int(found.group(1)) if found else 0
    if 400 <= status < 500 and status not in (408, 429):
        return _proxy_refusal(status, where)
    return Unavailable(f"{type(error).__name__}: {error}")


def _proxy_refusal(status: int, where: str) -> UserError:
    if status == 407:
        remedy = "write them into HTTPS_PROXY or HTTP_PROXY: http://user:password@host:port"
        return UserError("the proxy requires credentials", where=where, remedy=remedy)
    remedy = "allow the server in the proxy, or exclude it in NO_PROXY"
    return UserError(f"the proxy refuses to connect to the server ({status})", where=where, remedy=remedy)


def refusal_of(response: dict[str, Any]) -> Refusal:
    """The Refusal that an error answer parsed by botocore means."""
    error, meta = response.get("Error", {}), response.get("ResponseMetadata", {})
    after = str(meta.get("HTTPHeaders", {}).get("retry-after", ""))
    return Refusal(
        int(meta.get("HTTPStatusCode", 0)),
        str(error.get("Code", "")),
        str(error.get("Message", "")),
        float(after) if after.isdigit() else 0.0,
    )


def explained(refusal: Refusal, where: str) -> Exception:
    """The UserError that a refusal means; the refusal itself if only the caller can interpret it."""
    code, status = refusal.code, refusal.status
    if code == "NoSuchBucket":
        return UserError("no such bucket", where=where, remedy="create it, or correct its name in the address")
    if code in CREDENTIALS:
        return _credentials(f"the server refuses the credentials: {code}", where)
    if code == "RequestTimeTooSkewed":
        return UserError("the server reports that this machine's clock is wrong", where=where, remedy="set the clock")
    if code in REGION or status in (301, 307):
        return UserError("the bucket is in another region", where=where, remedy="set store.region to the bucket's")
    if code.startswith("KMS"):
        return UserError(f"the key cannot be used: {refusal.message}", where=where, remedy="correct store.kmsKeyId")
    if status == 407:
        return _proxy_refusal(status, where)
    if status in EXPECTED or code == "NoSuchUpload":
        return refusal
    if status == 507 or code in ("QuotaExceeded", "InsufficientCapacity"):
        return UserError("the store is full", where=where, remedy="free space, then `gog resume`")
    if status in (401, 403):
        return UserError(
            f"no permission ({code or status})",
            where=where,
            remedy="allow these credentials s3:ListBucket on the bucket, and s3:GetObject, s3:PutObject, "
            "s3:DeleteObject and s3:AbortMultipartUpload on its objects",
        )
    return UserError(f"the server refuses: {refusal}", where=where, remedy="is it an S3 server that gog supports?")


def _credentials(what: str, where: str) -> UserError:
    return UserError(
        what,
        where=where,
        remedy="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; on a cluster, in the Secret of store.secretName",
    )


def _untrusted(where: str) -> UserError:
    return UserError(
        "the server's certificate is not trusted",
        where=where,
        remedy="name its authority's PEM file in store.caBundle; on a cluster, put ca.crt into the Secret",
    )
