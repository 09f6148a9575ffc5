"""The operator's log in JSON: a line for each record, whatever it quotes."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime

import pytest

from gog_console import cli
from gog_operator import log_format


def line(message: str, *args: object) -> str:
    record = logging.LogRecord("gog_operator.resync", logging.WARNING, __file__, 1, message, args, None)
    return log_format.Json().format(record)


def test_a_record_is_one_line_of_json_with_its_time():
    text = line("resync: namespace %s: %s", "team-a", 'quoted "words"\nand a second line')
    assert "\n" not in text
    entry = json.loads(text)
    assert (entry["level"], entry["logger"]) == ("warning", "gog_operator.resync")
    assert entry["message"] == 'resync: namespace team-a: quoted "words"\nand a second line'
    assert datetime.fromisoformat(entry["time"]).utcoffset() is not None and "traceback" not in entry


def test_a_traceback_belongs_to_its_record():
    try:
        raise ValueError("no such column")
    except ValueError:
        record = logging.LogRecord("gog", logging.ERROR, __file__, 1, "failed", (), sys.exc_info())
    text = log_format.Json().format(record)
    assert "\n" not in text and "ValueError: no such column" in json.loads(text)["traceback"]


@pytest.mark.parametrize(("given", "form"), [([], "text"), (["--log-format=json"], "json")])
def test_the_format_is_an_option_of_the_operator(given, form):
    assert cli.build_parser().parse_args(["operator", *given]).log_format == form
