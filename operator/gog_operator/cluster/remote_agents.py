"""Agents of a namespace: publications are store jobs, routes are a ConfigMap, chats are counted by the agent's pods."""

from __future__ import annotations

from typing import Any

from gog import spec as settings
from gog.offers import Asked
from gog_operator.api import names
from gog_operator.api.objects import GoGRun, Progress, ToolServer
from gog_operator.build import publishing
from gog_operator.cluster import documents, kserve, polls, store_jobs
from gog_operator.plan.actions import PublicationView
from gog_operator.workqueue import Key


class AgentsOfCluster:
    """The part of a RemoteCluster that serves agents."""

    namespace: str
    polls: polls.Polls
    servers: kserve.KServeServers
    store_jobs: store_jobs.StoreJobs

    def _placed(self, owner: Any) -> Any:
        raise NotImplementedError

    def _store(self, owner: Any) -> settings.StoreSpec:
        raise NotImplementedError

    def set_routes(self, agent: ToolServer, routes: str) -> None:
        self.servers.set_routes(agent, routes)

    def chats(self, agent: ToolServer) -> Progress | None:
        """What one pod of the agent reports: chats are spread over pods by chance, so those of any are a sample."""
        return self.polls.progress(Key(agent.kind, self.namespace, agent.name), f"{agent.status.url}/progress")

    def agent_store(self, run: GoGRun, name: str) -> None:
        """None: versions are in the store of the run that starts the agent."""

    def publication(self, run: GoGRun) -> PublicationView:
        view = self.store_jobs.view(names.store_job(run.name, "publish"), run.metadata.uid)
        match view.state:
            case "running":
                return PublicationView("running", blocked=view.blocked)
            case "done":
                return PublicationView("done", documents.published(view.result))
            case "absent" | "failed":
                return PublicationView(view.state, message=view.message)

    def publish(self, run: GoGRun, asked: Asked, store: settings.StoreSpec) -> None:
        body = publishing.config(asked, self._store(run), store)
        job = names.store_job(run.name, "publish")
        self.store_jobs.start(job, self._placed(run), "publish", body, self._store(run), store)
