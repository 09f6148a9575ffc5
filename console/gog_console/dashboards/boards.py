"""The four dashboards, as data and as the files of the chart."""

from __future__ import annotations

import json

from gog_console.dashboards import grafana, operator_board, run_board, tools_board, training_board

ALL = (run_board.BOARD, tools_board.BOARD, training_board.BOARD, operator_board.BOARD)


def files() -> dict[str, str]:
    """{file name: Grafana's JSON}."""
    return {
        f"gog-{board.name}.json": json.dumps(grafana.dashboard(board), indent=1, ensure_ascii=False) + "\n"
        for board in ALL
    }
