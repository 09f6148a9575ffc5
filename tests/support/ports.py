"""Free ports for servers that tests start.

Problem: a port that the kernel gives is free again until the server listens on it, and in between the kernel may give it to
another process, which is likely enough when several workers test at once. Decision: ports come from below the range
from which the kernel gives any, and a process claims a port with a UDP socket of the same number, which it holds until it
ends. TCP servers are not disturbed by that, and the kernel releases the claims of a process that dies in any way.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterator

FIRST, COUNT = 20_000, 10_000
"""The range. Linux gives ports from 32768, macOS from 49152; Kubernetes gives 30000 to 32767."""
_claims: list[socket.socket] = []


def free(count: int) -> list[int]:
    """TCP ports of the loopback interface that stay this process's until it ends.

    Args:
        count: how many.

    Returns:
        Ports on which nothing listens.

    Raises:
        RuntimeError: the range has too few.
    """
    found = list(itertools.islice(filter(_claim, _candidates()), count))
    if len(found) < count:
        raise RuntimeError(
            f"no {count} free ports from {FIRST} to {FIRST + COUNT - 1}: end the programs that hold them"
        )
    return found


def _candidates() -> Iterator[int]:
    """Every port of the range, from a place that differs between processes."""
    start = os.getpid() * 37 + len(_claims)
    return (FIRST + (start + offset) % COUNT for offset in range(COUNT))


def _claim(port: int) -> bool:
    claim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        claim.bind(("127.0.0.1", port))
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        claim.close()
        return False
    _claims.append(claim)
    return True
