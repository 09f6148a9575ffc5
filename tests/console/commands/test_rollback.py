"""`gog rollback`: which version of an agent is rolled back, and when it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from gog_console import cli
from gog_operator.api.meta import ROLLBACK
from gog_operator.api.objects import ToolServer
from gog_operator.api.records import CanaryStatus
from gog_operator.cluster.files import ObjectFiles

AGENT = {"model": {"base": "tiny"}}


def write(folder: Path, canary: CanaryStatus) -> ObjectFiles:
    spec = {"role": "agent", "agent": AGENT, "store": {"uri": "file:///s"}, "data": {"path": "/d"}, "version": "a/2"}
    body = {"apiVersion": "gog.dev/v1alpha1", "kind": "ToolServer", "metadata": {"name": "a"}, "spec": spec}
    agent = ToolServer.model_validate(body)
    files = ObjectFiles(folder / "a" / "objects")
    files.create(
        agent.model_copy(update={"status": agent.status.model_copy(update={"version": "a/1", "canary": canary})})
    )
    return files


def rolled_back(files: ObjectFiles) -> str:
    agent = files.get(ToolServer, "a")
    return agent.metadata.annotations.get(ROLLBACK, "") if agent is not None else ""


def test_the_version_that_is_tried_is_rolled_back_first(tmp_path):
    files = write(tmp_path, CanaryStatus(version="a/2", previous="a/0"))
    assert cli.main(["rollback", "a", "--dir", str(tmp_path)]) == cli.COMPLETE
    assert rolled_back(files) == "a/2"


def test_else_the_one_that_is_served_is_where_one_before_it_is_known(tmp_path, capsys: pytest.CaptureFixture[str]):
    files = write(tmp_path, CanaryStatus())
    assert cli.main(["rollback", "a", "--dir", str(tmp_path)]) == cli.INVALID
    assert "serves a/1, and no version before it is known" in capsys.readouterr().err
    assert cli.main(["rollback", "a", "a/9", "--dir", str(tmp_path)]) == cli.INVALID
    assert "does not serve a/9 (it serves a/1)" in capsys.readouterr().err
    assert rolled_back(files) == ""
