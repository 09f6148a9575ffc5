"""Two questions with two rollouts each, as a model with a ChatML template writes them, for the writers beside this file.

The tokenizer has one token a byte, and ChatML's special tokens, so a writer decodes the very texts that are here.
"""

from __future__ import annotations

from typing import Any

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
IMAGE = f"<|vision_start|>{'<|image_pad|>' * 64}<|vision_end|>"
SYSTEM = "You answer questions about images. Think first. Tools: web_search, image_zoom_in_tool."
QUESTIONS = {
    "In which year was this tower finished?": ("1889", "images/tower.png"),
    "这座塔有多高？": ("330米", "images/tower.png"),
}
ROLLOUTS = {
    "In which year was this tower finished?": (
        (
            "<think>It may be the Eiffel Tower. I look closer.</think>\n"
            '<tool_call>\n{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [20, 4, 44, 60], "label": "tower"}}\n</tool_call>',
            f"<tool_response>\n{IMAGE}\n</tool_response>",
            "<think>An iron lattice: yes.</think>\n"
            '<tool_call>\n{"name": "web_search", "arguments": {"query": "Eiffel Tower year finished"}}\n</tool_call>',
            "<tool_response>\nThe tower was finished on 31 March 1889.\nuser\ncomments are closed\n</tool_response>",
            "<think>1889.</think>\n<answer>1889</answer>",
        ),
        ("<think>Old iron.</think>\n<answer>1887</answer>",),
    ),
    "这座塔有多高？": (
        (
            "<think>先搜索。</think>\n<search>埃菲尔铁塔 高度</search>",
            "<information>Error: the search engine timed out</information>",
            "<think>我记得是330米。</think>\n<answer>330米</answer>",
        ),
        ("<think>这座塔很高，",),
    ),
}


def tokenizer() -> Any:
    """A byte tokenizer with ChatML's special tokens."""
    import tokenizers
    import transformers
    from tokenizers import decoders, models, pre_tokenizers

    signs = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = tokenizers.Tokenizer(models.BPE({sign: number for number, sign in enumerate(signs)}, []))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.add_special_tokens(list(SPECIAL))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token=SPECIAL[0], eos_token=SPECIAL[2], clean_up_tokenization_spaces=False
    )


def prompt(question: str) -> str:
    """What the model reads."""
    return f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{IMAGE}{question}<|im_end|>\n<|im_start|>assistant\n"


def completion(parts: tuple[str, ...]) -> str:
    """What the model writes and reads afterwards; turns and observations alternate."""
    frame = "<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    return "".join(frame.format(part) if place % 2 else part for place, part in enumerate(parts)) + "<|im_end|>"


def rows() -> list[tuple[str, str, str, str]]:
    """Question, gold answer, path of the image and completion of each rollout."""
    return [
        (question, *QUESTIONS[question], completion(parts)) for question, group in ROLLOUTS.items() for parts in group
    ]
