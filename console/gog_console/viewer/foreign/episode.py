"""A row of another project as a trajectory. Pure.

Only what the row says is filled in. A score is a verdict where it is called one, or where it is the only figure and 0 or
1; otherwise the row counts as not judged and keeps its score as its reward.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gog.dataset.foreign import values
from gog.dataset.foreign.values import Fault
from gog.trajectory import Candidate, Failure, Observation, Result, Reward, Trajectory, Turn
from gog_console.viewer.dumps import Played
from gog_console.viewer.foreign import acts, chat, pictures
from gog_console.viewer.foreign.chat import Message

MOST_MARKS = 24
"""Further figures of a row that are shown."""
LONGEST_MARK = 300
"""Characters of one."""
_SEEN = re.compile(
    r"<(information|tool_response|observation|result|tool_result|interpreter)>\s*(.*?)\s*(?:</\1>|\Z)", re.DOTALL
)
"""What came back, where a model's text and it are one."""
_MADE = re.compile(r"New image ID: img_(\d+)\b.*?Available at: (\S+)", re.DOTALL)
_FILE = re.compile(r"(?<![\w/:.])(?:/|\./|[\w-]+/)[^\s\"'<>()\[\]]*\.(?:png|jpe?g|webp)\b", re.IGNORECASE)
_FAILED = re.compile(
    r"(?:tool execution error|error executing|\[[\w ]*error\]|error:|traceback \(most recent)", re.IGNORECASE
)
_ASKED = re.compile(r"^\s*Question:\s*(.+)", re.MULTILINE)
_ORIGINAL = "img_1"
"""How the question's image is referred to by projects that number images."""


def conversation(record: Mapping[str, Any], field: str, speaker: str = "") -> list[Message]:
    """The messages of a field: a decoded text, or a list of messages. Raises Fault for anything else.

    Args:
        record: the row.
        field: of the row.
        speaker: who a text begins with; empty for a prompt.
    """
    value = record.get(field)
    if isinstance(value, str):
        return chat.of_text(value, speaker)
    if not isinstance(value, list):
        raise Fault(field, f"is {values.kind(value)}, not text")
    try:
        return chat.of_messages(value)
    except ValueError as error:
        raise Fault(field, str(error)) from None


def number(record: Mapping[str, Any], field: str) -> float | None:
    """A figure of a row; None where it has none. Raises Fault for what is no number."""
    value = record.get(field)
    if values.is_missing(value):
        return None
    if isinstance(value, bool | int | float):
        return float(value)
    try:
        return float(str(value))
    except ValueError:
        raise Fault(field, f"is {values.kind(value)}, not a number") from None


def verdict(record: Mapping[str, Any], fields: Sequence[str], alone: float | None) -> float | None:
    """Whether the answer is correct, 1 or 0; None where the row does not say so.

    Args:
        record: the row.
        fields: that hold a verdict, the first that is there counts.
        alone: the row's only score, which is a verdict if it is 0 or 1.
    """
    named = next((field for field in fields if not values.is_missing(record.get(field))), None)
    found = number(record, named) if named else alone
    return found if found in (0.0, 1.0) else None


def accepted(value: Any) -> tuple[str, ...]:
    """Accepted answers in any of the forms that trainers write them; none where there are none."""
    if isinstance(value, Mapping):
        value = values.get(value, "target", "ground_truth", "answer", "answers") or json.dumps(value, default=str)
    try:
        return values.answers(value) if not values.is_missing(value) else ()
    except Fault:
        return (str(value),)


def build(
    *,
    prompt: Sequence[Message],
    completion: Sequence[Message],
    answers: tuple[str, ...],
    accuracy: float | None,
    record: Mapping[str, Any],
    known: Sequence[str],
    total: float | None = None,
    advantage: float | None = None,
    step: int = 0,
    question_id: str = "",
    image: str = "",
    kind: str = "",
    policy: str = "",
) -> Played:
    """A row as an episode.

    Args:
        prompt: what the model read before it began. A last message of the assistant is the beginning of its first turn.
        completion: what it wrote, and what came back.
        answers: the accepted ones.
        accuracy: the verdict.
        record: the row, for its images and further figures.
        known: fields of the row that are in the other arguments.
        total: the reward; the verdict where it is None.
        advantage: as it was learned.
        step: of the training.
        question_id: the same for all rollouts of a question; made of the prompt where it is empty.
        image: name under which the question's image is looked up, where the row has none.
        kind: of the question.
        policy: the model.
    """
    before = list(prompt)
    begun = before.pop().text if before and before[-1].role == "assistant" else ""
    shown = pictures.of(record) or ({pictures.name(image): image} if image else {})
    played = _Turns(next(iter(shown), ""), shown)
    turns = tuple(played.all(_steps([Message("assistant", begun), *completion])))
    asked = "\n\n".join(f"{each.role}\n{each.text}" for each in before)
    total = accuracy if total is None else total
    # The format reward is not known; the viewer shows the figures of the row in its place.
    reward = None if total is None and accuracy is None else Reward(accuracy=accuracy, format=0.0, total=total)
    id = question_id or hashlib.blake2b(f"{asked} {next(iter(shown), '')}".encode(), digest_size=6).hexdigest()
    trajectory = Trajectory(
        id=id, question_id=id, question=_question(before), answers=answers, image=next(iter(shown), ""), kind=kind,
        policy=policy, step=step, turns=turns, reward=reward, advantage=advantage, stop=_stop(turns),
        answer=turns[-1].argument if turns[-1].action == "answer" else None,
        failures=tuple(failure for turn in turns if turn.observation for failure in turn.observation.failures),
    )  # fmt: skip
    marks = {name: told for name, value in record.items() if name not in known and (told := _mark(name, value))}
    return Played(trajectory, played.images, asked, dict(list(marks.items())[:MOST_MARKS]))


def _mark(name: str, value: Any) -> str:
    if values.is_missing(value) or name in pictures.FIELDS:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    told = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return told if len(told) <= LONGEST_MARK else f"{told[:LONGEST_MARK]} …"


def _question(before: Sequence[Message]) -> str:
    """The last thing that a user asked, without the instructions around it where they say what the question is."""
    asked = [each.text for each in before if each.role == "user" and not _SEEN.match(each.text)]
    text = (asked or [each.text for each in before] or [""])[-1]
    text = text.replace(chat.IMAGE, "").strip()
    named = _ASKED.findall(text)
    return named[-1].strip() if named else text


def _stop(turns: Sequence[Turn]) -> str:
    if turns[-1].action == "answer":
        return "answer"
    return "max_turns" if turns[-1].observation is not None else "format"


def _steps(messages: Sequence[Message]) -> Iterator[tuple[str, str | None]]:
    """Each turn of the model, and what came back after it; None after the last one."""
    text, seen = "", ""
    for message in messages:
        for role, part in _parts(message):
            if role == "assistant" and seen:
                yield text, seen
                text, seen = part, ""
            elif role == "assistant":
                text = "\n".join(filter(None, (text, part)))
            else:
                seen = "\n".join(filter(None, (seen, part)))
    yield text, seen or None


def _parts(message: Message) -> Iterator[tuple[str, str]]:
    """A message as what the model wrote and what came back, in order."""
    if message.role != "assistant":
        tagged = [match[2] or "(empty)" for match in _SEEN.finditer(message.text)]
        yield "tool", "\n".join(tagged) or message.text
        return
    at = 0
    for match in _SEEN.finditer(message.text):
        yield "assistant", message.text[at : match.start()].strip()
        yield "tool", match[2] or "(empty)"
        at = match.end()
    yield "assistant", message.text[at:].strip()


class _Turns:
    """The turns of one episode, and the images that they show."""

    def __init__(self, image: str, images: Mapping[str, Any]) -> None:
        self.images = dict(images)
        self._names = {_ORIGINAL: image}
        self._offered: set[int] = set()

    def all(self, steps: Iterator[tuple[str, str | None]]) -> Iterator[Turn]:
        """A turn for each step."""
        for text, seen in steps:
            reasoning, rest = acts.reasoning(text)
            act = acts.act(rest, last=seen is None)
            chosen = self._chosen(act)
            yield Turn(
                text=text,
                action="gaze" if chosen else act.kind,
                argument="" if chosen else act.argument,
                selected=chosen,
                reasoning=reasoning,
                observation=None if seen is None else self._observation(act, seen),
            )

    def _chosen(self, act: acts.Act) -> tuple[int, ...]:
        """The number of a crop that was made before and is now searched."""
        number = re.fullmatch(r"img_(\d+)", act.reference)
        return (int(number[1]),) if act.kind == "glance" and number and int(number[1]) in self._offered else ()

    def _observation(self, act: acts.Act, text: str) -> Observation:
        made = {f"img_{match[1]}": match[2].rstrip(".,") for match in _MADE.finditer(text)}
        files = list(dict.fromkeys([*made.values(), *_FILE.findall(text)]))
        names = {file: pictures.name(file) for file in files}
        self.images |= {name: file for file, name in names.items()}
        self._names |= {reference: names[file] for reference, file in made.items()}
        candidates = self._crop(act, made, names) if act.box else ()
        shown = [file for file in files if names[file] not in {each.crop for each in candidates}]
        return Observation(
            text=text,
            tool=act.tool,
            images=tuple(names.values()),
            candidates=candidates,
            results=tuple(Result(title=file.rpartition("/")[2][:200], thumbnail=names[file]) for file in shown),
            failures=(Failure(tool=act.tool, kind="reported", message=text[:200]),) if _FAILED.match(text) else (),
        )

    def _crop(self, act: acts.Act, made: Mapping[str, str], names: Mapping[str, str]) -> tuple[Candidate, ...]:
        """The part of an image that a call cut out."""
        assert act.box
        reference, file = next(iter(made.items()), ("", ""))
        number = int(reference.removeprefix("img_")) if reference else len(self._offered) + 1
        self._offered.add(number)
        of = self._names.get(act.reference, "") if act.reference not in ("", _ORIGINAL) else ""
        return (Candidate(number=number, box=act.box, image=of, score=0.0, label=act.tool, crop=names.get(file, "")),)
