"""Writes opensearch_vl/*_trajectory.json with OpenSearch-VL's own pipeline and its own tools, on a scripted model.

PYTHONPATH=OpenSearch-VL/opensearch_vl python write_opensearch_vl.py FOLDER      needs its requirements
"""

from __future__ import annotations

import sys
from pathlib import Path

from opensearch_infer import pipeline, runners
from opensearch_infer.config import ModelSpec

ASKED = {"fvqa_test_7": "What is the small thing beside the tower?", "fvqa_test_8": "Who built the tower?"}
SAID = {
    "fvqa_test_7": (
        "<think>It is small: I crop.</think>\n<tool_call>\n"
        '{"name": "crop", "arguments": {"image": "img_1", "x": 44, "y": 40, "width": 16, "height": 20}}\n</tool_call>',
        '<think>Now I search it.</think>\n<tool_call>\n{"name": "image_search", "arguments": {"url": "img_2"}}\n</tool_call>',
        "<think>The search failed.</think>\n<response>\nIt is a kiosk.\n\n\\boxed{kiosk}\n</response>",
    ),
    "fvqa_test_8": ("<think>I know.</think>\n<response>\nGustave Eiffel's company.\n</response>",),
}


class Scripted(runners.BaseRunner):
    """A model whose turns are written."""

    def __init__(self, texts: tuple[str, ...]) -> None:
        super().__init__(ModelSpec(name="scripted", display_name="Scripted-8B", family="claude"))
        self.texts = list(texts)

    def infer(self, contents, system_instruction=None, cfg=None):
        parts = [{"text": self.texts.pop(0)}]
        candidate = {"content": {"role": "model", "parts": parts}, "finishReason": "STOP"}
        return {"candidates": [candidate], "usageMetadata": {}, "modelVersion": self.display_name}


def main() -> None:
    folder = Path(sys.argv[1])
    image = (Path(__file__).parent / "images" / "tower.png").read_bytes()
    for number, (case, question) in enumerate(ASKED.items()):
        row = {
            "data_id": case, "category": "search_required", "data_source": "fvqa", "images": [{"bytes": image}],
            "prompt": [{"role": "user", "content": question}],
        }  # fmt: skip
        pipeline.process_single_case(row, Scripted(SAID[case]), str(folder), number, dataset_type="test")


if __name__ == "__main__":
    main()
