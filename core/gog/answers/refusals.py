"""Answers that give none."""

from __future__ import annotations

import re

from gog import languages

_REFUSAL = re.compile(
    r"""^\W*(?:
        (?:sorry|unfortunately|apologies)\b.* | .*\bi\s*(?:'m|\ am)\ (?:not\ sure|unsure|unable|sorry)\b.*
        | .*\bi\ (?:do\ not|don'?t|cannot|can'?t|could\ not|couldn'?t)\ (?:know|tell|answer|determine|find|identify|say|provide)\b.*
        | (?:it\ is\ |it's\ )?(?:unknown|unclear|uncertain|undetermined|unsure|not\ (?:known|available|sure|given|stated|specified))\b.*
        | (?:n/?a|none|nil|null|nan|no\ (?:answer|idea|information|data|result|results))
        | .*\b(?:cannot|can'?t|could\ not|unable\ to)\ (?:be\ )?(?:determined?|answer(?:ed)?|identif\w+|verif\w+)\b.*
        | (?:not\ enough|insufficient)\ information.* | わかりません.*
    )\W*$""",
    re.IGNORECASE | re.VERBOSE,
)

_OTHERS = re.compile("|".join(f"(?:{each.answers.refusals})" for each in languages.every() if each.answers.refusals))
"""Refusals in other languages."""


def is_refusal(text: str) -> bool:
    """Whether a text says that it gives no answer.

    >>> [is_refusal(text) for text in ("I don't know.", "N/A", "", "Paris")]
    [True, True, True, False]
    """
    plain = " ".join(text.replace("’", "'").split())
    if not any(char.isalnum() for char in plain) or _REFUSAL.match(plain[:400]):
        return True
    return bool(_OTHERS.fullmatch(plain[:400].rstrip("。.!！")))
