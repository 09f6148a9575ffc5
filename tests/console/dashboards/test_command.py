"""`gog dashboards`, and what is drawn when a Prometheus knows nothing, little, or too much."""

from __future__ import annotations

import io
import math

import pytest
import yaml
from PIL import Image

from gog.errors import UserError
from gog_console import cli
from gog_console.dashboards import boards, drawing, images, panels, prometheus

HOUR = 3600.0


def test_it_writes_the_dashboards_and_the_rules(tmp_path, capsys):
    assert cli.main(["dashboards", "--dir", str(tmp_path / "new")]) == 0
    assert {path.name for path in (tmp_path / "new").iterdir()} == {*boards.files(), "rules.yaml"}
    assert yaml.safe_load((tmp_path / "new/rules.yaml").read_text())["groups"]
    assert "gog-run.json" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_is_named_in_a_sentence(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli.main(["dashboards", "--dir", str(tmp_path / "file")]) == 2
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_a_prometheus_that_is_not_there_is_named_in_a_sentence(tmp_path, capsys):
    assert cli.main(["dashboards", "--dir", str(tmp_path), "--prometheus", "http://127.0.0.1:1"]) == 2
    assert "http://127.0.0.1:1: no answer of a Prometheus" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def drawn(evaluate) -> Image.Image:
    """A dashboard with one panel of each kind."""
    two, three = (
        panels.Query("x", "{{run}}"),
        (panels.Query("x", "mean"), panels.Query("x", "above"), panels.Query("x", "below")),
    )
    row = panels.Row(
        "All kinds",
        (
            panels.number("Number", "x", limit=0.5),
            panels.lines("Lines", two, limit=2.0),
            panels.lines("Stacked", two, stacked=True, unit="seconds"),
            panels.lines("Band", *three, band=True, low=None),
            panels.bars("Bars", two),
            panels.states("States", two, *panels.BREAKER),
        ),
    )
    board = panels.Dashboard("all", "All", "Every kind of panel.", (row,), {})
    return Image.open(io.BytesIO(drawing.image(board, evaluate, 0, HOUR)))


@pytest.fixture(scope="module", autouse=True)
def matplotlib():
    return pytest.importorskip("matplotlib", reason="images are drawn by matplotlib, which is not installed")


@pytest.mark.parametrize(
    "points",
    [
        ((HOUR, 1.0),),
        ((HOUR, math.nan),),
        ((0.0, math.nan), (HOUR, 1.0)),
        ((0.0, math.inf), (60.0, 1.0)),
        ((0.0, 0.0), (HOUR, 0.0)),
        ((0.0, -3.0), (60.0, -1.0)),
    ],
    ids=["one point", "no number", "some number", "infinite", "zero", "negative"],
)
def test_an_image_can_be_made_of_any_values(points):
    assert drawn(lambda expr, instant: [prometheus.Series({"run": "a"}, points)]).width > 1000


def test_a_dashboard_without_data_can_be_drawn():
    assert drawn(lambda expr, instant: []).width > 1000


def test_fifty_runs_leave_space_for_their_curves(monkeypatch):
    heights = []
    real = drawing.Canvas.box
    monkeypatch.setattr(drawing.Canvas, "box", lambda self, x, y, w, h: heights.append(h) or real(self, x, y, w, h))
    names = [f"a-run-with-a-long-name-{i}" for i in range(50)]
    drawn(lambda expr, instant: [prometheus.Series({"run": name}, ((0.0, 1.0), (HOUR, 2.0))) for name in names])
    assert min(heights) > 0.4  # inches


def test_without_matplotlib_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(UserError, match="pip install matplotlib"):
        images.of_all(prometheus.Prometheus("http://127.0.0.1:1"), 0, HOUR)
