"""Asks the pods of served policies which checkpoint they serve, and loads one, in threads of its own.

The pods belong to tenants: they may take every request to its deadline. A pass therefore takes the result of the last check
and plans the next one, at a bounded rate per policy; a changed result queues another pass. Threads are shared fairly by
namespaces.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from gog_operator.api.meta import Reason
from gog_operator.cluster import trainer_client
from gog_operator.cluster.interface import Refused
from gog_operator.workqueue import Key, WorkQueue

THREADS = 3
"""Policies that are asked at the same time."""
CHECK_SECONDS = 2.0
"""Minimum interval between two checks of a policy."""
FORGET_SECONDS = 3600.0
"""Time after which a policy is forgotten that no pass has asked for."""

log = logging.getLogger(__name__)


@dataclass
class _Policy:
    """A served policy."""

    pods: tuple[str, ...]
    """Address of each pod."""
    version: str
    """The checkpoint that they should serve."""
    due: float
    """Reading of the clock from which they may be asked again."""
    serves: bool | None = None
    """Whether every pod serves it; None before the first check."""
    failure: str = ""
    """Why loading it failed for good, until a pass has reported that."""
    loads: bool = False
    """Whether the next check also loads it."""
    token: str = field(default="", repr=False)
    """The token that the pods require of a load; empty where they require none."""


class PolicyPolls:
    """Checks and loads versions.

    Args:
        request: Sends an HTTP request to a pod.
        clock: Monotonic time in seconds.
        arrived: Called with the ToolServer whose result has changed.
    """

    def __init__(
        self, request: trainer_client.Request, clock: Callable[[], float], arrived: Callable[[Key], None]
    ) -> None:
        self.queue = WorkQueue(clock, workers=THREADS)
        self._request, self._clock, self._arrived = request, clock, arrived
        self._policies: dict[Key, _Policy] = {}
        self._lock = threading.Lock()

    def serves(self, key: Key, pods: tuple[str, ...], version: str) -> bool | None:
        """Whether every pod served the version at the last check, after which another one is due.

        Args:
            key: The ToolServer.
            pods: Address of each pod.
            version: The checkpoint, such as `grpo/120`.

        Returns:
            None before the first check.
        """
        with self._lock:
            return self._plan(key, pods, version).serves

    def load(self, key: Key, pods: tuple[str, ...], version: str, token: str = "") -> None:
        """Plans one pass of a version's rollout.

        Args:
            key: The ToolServer.
            pods: Address of each pod.
            version: The checkpoint, such as `grpo/120`.
            token: The token that the pods require; empty where they require none.

        Raises:
            Refused: the last one failed for good.
        """
        with self._lock:
            policy = self._plan(key, pods, version)
            failure, policy.failure, policy.token = policy.failure, "", token
            policy.loads = not failure  # a pass that follows a refusal tries again
        if failure:
            raise Refused(Reason.SERVING, failure)

    def run(self) -> None:
        """Makes checks until the queue is closed."""
        while (key := self.queue.wait()) is not None:
            self.process(key)

    def process(self, key: Key) -> None:
        """Makes one check. Never raises, because the thread serves all policies."""
        with self._lock:
            policy = self._policies.get(key)
        news = False
        if policy is not None:
            try:
                news = self._check(policy)
            except Exception:
                log.exception("%s", "/".join(key))
            policy.due = self._clock() + CHECK_SECONDS
        self.queue.done(key)
        if news:
            self._arrived(key)

    def _check(self, policy: _Policy) -> bool:
        """Asks the pods. Returns whether the result has changed."""
        from gog_operator.cluster import policies  # imports numpy (15 MiB), which only a served policy needs

        before = (policy.serves, policy.failure)
        if policy.loads:
            outcome = policies.load(policy.pods, policy.version, policy.token)
            policy.loads, policy.serves = False, outcome.state == "done"
            policy.failure = outcome.message if outcome.state == "failed" else ""
        else:
            policy.serves = policies.serve(policy.pods, policy.version, self._request)
        return before != (policy.serves, policy.failure)

    def _plan(self, key: Key, pods: tuple[str, ...], version: str) -> _Policy:
        """The policy, whose next check is planned."""
        now, policy = self._clock(), self._policies.get(key)
        if policy is None or (policy.pods, policy.version) != (pods, version):
            self._policies = {each: one for each, one in self._policies.items() if one.due > now - FORGET_SECONDS}
            policy = self._policies[key] = _Policy(pods, version, now)
        self.queue.add(key, policy.due - now)
        return policy
