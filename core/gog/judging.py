"""What the judge is asked, and how its reply is read.

The judge sees text only: question, accepted answers, given answer; never a page or an image, so that nothing from the web
can address it. The rules follow MMSearch-R1's published judge, because the paper's prompt is not public. The verdict is
Yes or No; anything else is a judge *error*, which is not a wrong answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from gog import chat_replies, metrics
from gog.errors import ServiceDown, UserError
from gog.trajectory import Failure

MINIMUM = 0.95
"""Fraction of verdicts that must succeed; below it accuracies mean nothing and the stage stops [peer: SenseNova-MARS]."""
ENOUGH, TOO_FEW = 20, 5
"""Enforce the success rate from 20 verdicts; treat the judge as failed after 5 failures without a success."""

ANSWERED = ("malformed", "undecided", "refused", "cache_miss")
"""Kinds of failure of a judge that is up; more calls would fail alike."""

RULES = """You decide whether an answer to a question is correct, given the accepted answers.
1. The answer is correct if it means the same as any accepted answer, in any language or script.
2. Judge the final answer only, not the reasoning.
3. Ignore case, punctuation, articles and word order of names.
4. Numbers must agree after bringing units to the same scale; rounding of the last digit is allowed.
5. Dates must agree to the precision of the accepted answer.
6. More detail than asked is correct if nothing contradicts an accepted answer.
7. Less detail than asked is incorrect.
8. An answer that names several alternatives is incorrect.
9. No answer, or a refusal, is incorrect.
10. Reply with exactly one word: Yes or No."""


def messages(question: str, answers: Sequence[str], answer: str) -> list[dict[str, str]]:
    """OpenAI chat messages for one verdict. The user message is a JSON object, so that no answer can pose as a rule.

    Args:
        question: the question.
        answers: the accepted answers.
        answer: the answer to judge.
    """
    case = {"question": question, "accepted_answers": list(answers), "answer": answer}
    return [{"role": "system", "content": RULES}, {"role": "user", "content": json.dumps(case, ensure_ascii=False)}]


def read_case(content: str) -> tuple[str, list[str], str]:
    """Question, accepted answers and answer in a user message of `messages`. Raises ValueError for any other text."""
    try:
        case = json.loads(content)
        return str(case["question"]), [str(item) for item in case["accepted_answers"]], str(case["answer"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a case for the judge: {error!r}") from None


class NoVerdict(ValueError):
    """A completion that cannot hold a verdict however often it is asked for: a refusal, or one that was cut off."""


_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
_LABEL = re.compile(r"^(?:the |my |final )*(?:answer|verdict|judge?ment|decision)\s*(?:is\s*:?|:|=)\s*", re.IGNORECASE)
_LEADING = re.compile(r"(yes|no)(?=$|[.,;:!]|\s*[-–—(]|\s+because\b)", re.IGNORECASE)
_ALONE = re.compile(r"(?:^|[.,;:!\n])\s*(yes|no)\s*(?=[.,;:!\n]|$)", re.IGNORECASE)
_ENDING = re.compile(r"\b(yes|no)\W*$", re.IGNORECASE)


def read_verdict(reply: str) -> bool | None:
    """The verdict of a judge's reply, where it is plain.

    Reasoning in tags and Markdown do not count. What is left must begin with Yes or No as a word of its own, or end with
    a line that holds nothing else, and must not hold the opposite as well.

    >>> [read_verdict(reply) for reply in ("**Yes**", "No, because Ada is not Bob.", "<think>no?</think>Yes!")]
    [True, False, True]
    >>> [read_verdict(reply) for reply in ("Yes and No", "Perhaps", "<think>Yes")]
    [None, None, None]

    Returns:
        True for Yes, False for No, None for anything else: a judge error, which is not a wrong answer.
    """
    text = chat_replies.without_reasoning(reply)
    if text is None:
        return None
    lines = [line for each in text.splitlines() if (line := _plain(each))]
    if not lines:
        return None
    leading, closing = _LEADING.match(lines[0]), _LEADING.fullmatch(lines[-1].rstrip(".! "))
    if leading is None and closing is None:
        return None
    plain = "\n".join(lines)
    found = [match[1] for match in (leading, closing, _ENDING.search(plain)) if match] + _ALONE.findall(plain)
    verdicts = {word.lower() for word in found}
    return None if len(verdicts) > 1 else "yes" in verdicts


def _plain(line: str) -> str:
    """A line without Markdown, a label before it, and quotation marks or brackets around it."""
    bare = re.sub(r"[*_`~#>$]+", "", _BOXED.sub(r"\1", line))
    return _LABEL.sub("", bare.strip()).strip(" \t\"'“”‘’()[]{}").lstrip("-• ")


def reply_text(completion: Any) -> str:
    """The judge's words in the body of a chat completion.

    The content, as text or as parts; where it is empty, the reasoning that a server splits off: a model that puts its
    verdict there has still given one.

    Raises:
        NoVerdict: the judge refused, or was cut off before its verdict.
        ValueError: not a chat completion, or one without text; the message gives the reason.
    """
    reply = chat_replies.parse(completion)
    if reply.finish_reason == "length" and read_verdict(reply.content) is None:
        raise NoVerdict("cut off before its verdict: raise tools.judge.maxTokens")
    if reply.content.strip():
        return reply.content
    if reply.refusal.strip() or reply.finish_reason == "content_filter":
        raise NoVerdict(f"the judge refuses: {reply.refusal.strip()[:200] or reply.finish_reason}")
    if not reply.reasoning:
        raise ValueError(f"an empty reply (finish_reason {reply.finish_reason!r})")
    return reply.reasoning


def majority(verdicts: Sequence[bool | None]) -> bool | None:
    """The verdict of more than half of the votes, None where there is none. A vote that failed is None.

    >>> majority([True, None, True]), majority([True, None, False]), majority([True, None, None])
    (True, None, None)
    """
    return next((side for side in (True, False) if 2 * sum(each is side for each in verdicts) > len(verdicts)), None)


def check(outcomes: Sequence[Failure | None]) -> None:
    """Stops a stage whose judge fails too often.

    A judge that is down makes its callers wait (`outage.Watch`), so what is counted here failed in spite of that.

    Args:
        outcomes: of the newest verdicts, why each failed; None for a verdict.

    Raises:
        UserError: most failures are replies other than Yes or No, or refusals: the judge is set up wrongly.
        ServiceDown: most failures are missing answers: the judge is up and down.
    """
    failures = [each for each in outcomes if each is not None]
    asked, decided = len(outcomes), len(outcomes) - len(failures)
    metrics.record_judge_rate(decided, asked)
    if not ((asked >= ENOUGH and decided < MINIMUM * asked) or (asked >= TOO_FEW and decided == 0)):
        return
    last = f"{failures[-1].kind}: {failures[-1].message}".rstrip(": ")
    what = f"the judge decided only {decided} of {asked} answers; the last failure: {last}"
    if 2 * sum(each.kind in ANSWERED for each in failures) < len(failures):
        raise ServiceDown("judge", what)
    raise UserError(
        what,
        where="endpoints.judge",
        remedy="check its address, key and model, and that it replies Yes or No; the run resumes from its last checkpoint",
    )


def normalise(text: str) -> str:
    """An answer for judges that compare: lower case, without punctuation and articles, words separated by one space."""
    words = "".join(char if char.isalnum() else " " for char in text.lower()).split()
    return " ".join(word for word in words if word not in ("a", "an", "the"))


def mentions(text: str, answer: str) -> bool:
    """Whether a text contains an answer as whole words; in scripts without spaces, as consecutive characters.

    >>> mentions("Painted by Ada Lovelace.", "ada lovelace"), mentions("a lionheart", "lion"), mentions("作者是阿达", "阿达")
    (True, False, True)
    """
    wanted, words = normalise(answer), normalise(text)
    if any(ord(char) >= 0x2E80 for char in wanted):
        return wanted.replace(" ", "") in words.replace(" ", "")
    return bool(wanted) and f" {wanted} " in f" {words} "
