"""Rules: they are what the generator writes, fire when they have to, and lead to an entry that says what to do."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from support import kube

from gog_console.dashboards import rules

HERE = Path(__file__).parent
SHIPPED = kube.ROOT / "charts/gog/files/rules.yaml"
RUNBOOKS = kube.ROOT / rules.RUNBOOKS


def promtool(*args: object, folder: Path) -> str:
    done = subprocess.run(
        [kube.program("promtool"), *map(str, args)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def bare(groups: list[dict]) -> list[dict]:
    return [
        {
            **group,
            "rules": [{key: value for key, value in rule.items() if key != "annotations"} for rule in group["rules"]],
        }
        for group in groups
    ]


def test_the_chart_ships_what_the_generator_writes():
    assert SHIPPED.read_text() == rules.text(), "run: make dashboards"


def test_prometheus_accepts_every_rule_and_template(tmp_path):
    (tmp_path / "rules.yaml").write_text(rules.text())
    count = len(rules.RECORDED) + len(rules.ALERTS)
    assert f"{count} rules found" in promtool(
        "check", "rules", "--lint=all", "--lint-fatal", "rules.yaml", folder=tmp_path
    )


def test_each_alert_fires_when_it_should_and_not_before(tmp_path):
    groups = bare(yaml.safe_load(rules.text())["groups"])
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    (tmp_path / "alerts.yaml").write_text((HERE / "alerts.yaml").read_text())
    promtool("test", "rules", "alerts.yaml", folder=tmp_path)


@pytest.mark.parametrize("alert", rules.ALERTS, ids=lambda alert: alert.name)
def test_each_alert_is_tested_firing_and_silent(alert):
    tried = [
        each
        for group in yaml.safe_load((HERE / "alerts.yaml").read_text())["tests"]
        for each in group["alert_rule_test"]
        if each["alertname"] == alert.name
    ]
    assert any(each.get("exp_alerts") for each in tried) and any(not each.get("exp_alerts") for each in tried)


@pytest.mark.parametrize("alert", rules.ALERTS, ids=lambda alert: alert.name)
def test_each_alert_links_to_its_runbook_entry(alert):
    file, _, anchor = alert.document()["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^### (.+)$", (kube.ROOT / file).read_text(), re.MULTILINE)
    assert anchor in {heading.lower().replace(" ", "-") for heading in headings}


def test_every_runbook_entry_belongs_to_an_alert_and_names_existing_panels():
    from gog_console.dashboards import boards

    text = re.sub(r"\s+", " ", RUNBOOKS.read_text())
    assert set(re.findall(r"### (Gog\w+)", text)) == {alert.name for alert in rules.ALERTS}
    titles = {panel.title for board in boards.ALL for panel in board.panels()}
    named = set(re.findall(r'"([A-Z][^"]+)"', text))
    assert named and named <= titles, named - titles
