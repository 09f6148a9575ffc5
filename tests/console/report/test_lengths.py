"""The report's table of what failures excluded, by episode length."""

from __future__ import annotations

from gog_console.report import lengths

ROWS = [
    {
        "trajectories_by_calls": {"0": 10, "2": 4, "6+": 2},
        "excluded_by_calls": {"0": 0.0, "2": 0.25, "6+": 1.0},
        "trajectories_by_turns": {"1": 16},
        "excluded_by_turns": {"1": 0.1875},
    },
    {"trajectories_by_calls": {"2": 3}, "excluded_by_calls": {"2": 0.6667}},
    {"reward_mean": 0.5},  # of a version without the figures
    {"trajectories_by_calls": {"2": "many", "3": -1}, "excluded_by_calls": "all"},
]


def test_the_share_excluded_is_summed_up_by_length_over_all_steps():
    found = [(each.name, each.played, each.excluded) for each in lengths.by(ROWS, "calls")]
    assert found == [("0", 10, 0), ("2", 7, 3), ("6+", 2, 2)]
    assert [(each.name, each.excluded) for each in lengths.by(ROWS, "turns")] == [("1", 3)]


def test_the_table_shows_each_length_and_is_left_out_where_nothing_was_excluded():
    shown = str(lengths.table(ROWS))
    assert '<td>2</td><td class="n">7</td><td class="n">3</td><td class="n">42.9\u202f%</td>' in shown.replace("\n", "")
    assert lengths.table(ROWS[2:]) is None
    assert lengths.table([{"trajectories_by_calls": {"0": 5}, "excluded_by_calls": {"0": 0.0}}]) is None
