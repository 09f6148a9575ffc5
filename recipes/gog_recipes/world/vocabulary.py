"""The tiny model's vocabulary, and a tokenizer for it in ordinary Hugging Face form.

One token a word. ChatML and the agent's tags are split without spaces around them. "#2" is the two words "#" and "2", so
choosing a candidate is copying its number. White space carries no meaning: newlines are dropped and decoding joins with
single spaces. Words outside the world are `<unk>`.
"""

from __future__ import annotations

import tokenizers
import transformers
from tokenizers import models, pre_tokenizers

from gog_recipes.world import entities

TURN_END = "<|im_end|>"
PAD = "<|endoftext|>"
UNKNOWN = "<unk>"
IMAGE_PAD = "<|image_pad|>"
FRAME = (
    PAD,
    "<|im_start|>",
    TURN_END,
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    IMAGE_PAD,
    "<|video_pad|>",
)
"""ChatML and vision tokens, with Qwen's names."""
TAGS = (
    *("<think>", "</think>", "<img_search>", "</img_search>", "<text_search>", "</text_search>"),
    *("<answer>", "</answer>", "<information>", "</information>", "<img>"),
)
"""The agent's tags that the tiny model knows. Not derived from the grammar, because token ids belong to the shipped weights:
a tool that is added to gog gets a token here when the tiny base is trained again."""
FURTHER = (
    *("maker", "的", "是", "什么", "多少", "图中"),
    *("红色", "绿色", "蓝色", "黄色", "紫色", "白色"),
    *("圆形", "方形", "三角形", "十字形", "环形", "条形"),
    *("成立年份", "高度", "价格", "制造者", "名字", "颜色", "former"),
)
"""Words of harder worlds' questions and pages, in the order of their rows in the shipped weights. Those of a further language
are appended here, and learned by gog_recipes.world.further_words."""
SUPPRESSED = (*(token for token in FRAME if token != TURN_END), UNKNOWN, *FURTHER)
"""Tokens that generation must suppress. A sampled image token refers to an image that does not exist; further words are read
only, so they leave what is sampled in the standard world as it is."""
SPEECH = (
    *("user", "assistant", "system"),
    *("what", "is", "the", "of", "colour", "name", "?", ",", ";", "#"),
    *("one", "several", "read", "no", "match", "tool", "failed"),
)
COUNTING = tuple(str(number) for number in range(1, 10))
MAX_TOKENS = 1024
"""Context length."""

CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content -%}
{% if part.type == 'text' %}{{ part.text }}{% else %}<|vision_start|><|image_pad|><|vision_end|>{% endif %}
{%- endfor %}{% endif %}<|im_end|>
{% endfor -%}
{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def words() -> list[str]:
    """Every word, in the order of its token id."""
    things = (*entities.ATTRIBUTES, *entities.COLOURS, *entities.FORMS, *entities.NAMES, *entities.FACTS)
    return list(dict.fromkeys((*FRAME, *TAGS, UNKNOWN, *SPEECH, *COUNTING, *things, *FURTHER)))


def build_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """A word tokenizer; AutoTokenizer loads it after it was saved."""
    ids = {word: number for number, word in enumerate(words())}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    apart = [pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated") for pattern in ("</?[a-z_]+>", "[#?,;.:]")]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*apart, pre_tokenizers.WhitespaceSplit()])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=UNKNOWN,
        pad_token=PAD,
        eos_token=TURN_END,
        extra_special_tokens=[token for token in FRAME if token not in (PAD, TURN_END)],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=MAX_TOKENS,
        padding_side="right",
    )
