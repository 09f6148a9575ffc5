"""The four dashboards, as data and as the files that a chart ships."""

from __future__ import annotations

import json

from gog.observe import board_operator, board_run, board_tools, board_training, grafana

ALL = (board_run.BOARD, board_tools.BOARD, board_training.BOARD, board_operator.BOARD)


def files() -> dict[str, str]:
    """{file name: Grafana's JSON}."""
    return {
        f"gog-{board.name}.json": json.dumps(grafana.dashboard(board), indent=1, ensure_ascii=False) + "\n"
        for board in ALL
    }
