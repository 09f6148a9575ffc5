"""OpenSearch-VL's inference: `<case_id>_trajectory.json`, one file per question.

{"case_id": "fvqa_test_7", "case_idx": 7, "category": "search_required", "data_source": "fvqa", "timestamp": "…",
 "prompt": [{"role": "user", "content": "Who is it?"}], "final_response_text": "…",
 "turns": [{"turn": 0, "response": {…}, "response_text": "<think>…</think><tool_call>…</tool_call>",
            "tool_output": "<observation>\\n…\\n</observation>"}, {"turn": 1, "error": "…"}]}

Crops and other images that tools make are in `intermediate/` beside the files, under the names that the tool outputs
give. The question's image is not written: name its folder with `--images`, where it is looked up as `<case_id>.jpg` or
.png. Verdicts are taken from `eval_report_*_details.jsonl`, which its `eval_with_gpt4o.py` writes beside the files.

Source: opensearch_vl/opensearch_infer/pipeline.py at c5c02a4 (2026-07-30).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gog.dataset.foreign import messages, tables, values
from gog_console.viewer.dumps import Played
from gog_console.viewer.foreign import episode
from gog_console.viewer.foreign.chat import Message

_KNOWN = ("case_id", "prompt", "turns", "final_response_text", "original_data")


class Reader:
    """Reads OpenSearch-VL's trajectories. Implements gog_console.viewer.dumps.Reader."""

    def has(self, file: Path) -> bool:
        return file.name.endswith("_trajectory.json") and {"case_id", "turns"} <= tables.first(file).keys()

    def step(self, file: Path) -> int:
        return 0

    def played(self, record: Mapping[str, Any], file: Path) -> Played:
        case = values.text(record, "case_id")
        verdict = _verdicts(file.parent, _changed(file.parent)).get(case, {})
        original = record.get("original_data")
        gold = original.get("answers") if isinstance(original, Mapping) else None
        return episode.build(
            prompt=[Message("user", messages.first_user(record.get("prompt"), "prompt"))],
            completion=_turns(record.get("turns")),
            answers=episode.accepted(gold or verdict.get("correct_answer")),
            accuracy=episode.verdict(verdict, ("acc",), None),
            question_id=case,
            image=case,
            kind=str(values.get(record, "category") or ""),
            policy=_model(record),
            record=record,
            known=_KNOWN,
        )


def _turns(turns: Any) -> list[Message]:
    if not isinstance(turns, list) or not all(isinstance(turn, Mapping) for turn in turns):
        raise values.Fault("turns", f"is {values.kind(turns)}, not a list of objects")
    found: list[Message] = []
    for turn in turns:
        if turn.get("error"):
            found += [Message("assistant", ""), Message("tool", f"Error: {turn['error']}")]
        else:
            found.append(Message("assistant", str(turn.get("response_text") or "")))
        if turn.get("tool_output"):
            found.append(Message("tool", str(turn["tool_output"])))
    return found


def _model(record: Mapping[str, Any]) -> str:
    responses = (turn.get("response") for turn in record["turns"])
    found = (response.get("modelVersion") for response in responses if isinstance(response, Mapping))
    return next((name for name in found if isinstance(name, str)), "")


def _changed(folder: Path) -> tuple[tuple[str, int], ...]:
    reports = sorted(folder.glob("eval_report_*_details.jsonl"))
    return tuple((report.name, report.stat().st_mtime_ns) for report in reports)


@functools.lru_cache(maxsize=16)
def _verdicts(folder: Path, reports: tuple[tuple[str, int], ...]) -> dict[str, Mapping[str, Any]]:
    """Lines of the reports of a folder by case."""
    records = (record for name, _ in reports for record in tables.read(folder / name))
    return {str(each.fields.get("case_id")): each.fields for each in records if isinstance(each, tables.Record)}
