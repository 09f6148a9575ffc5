"""The scripted teacher: a session that writes demonstrations for the embedded world.

It takes the place of a policy and plays through the real tools, failures included, so that demonstrations look exactly
like episodes of the same arm. It knows what a human annotator marked (`Evidence`): the kind of question, the words that
refer to the thing, its box. It does not know what tools will answer; it reads names and facts from observations.

With `teacher_accuracy` < 1 some demonstrations slip: the whole image is searched although it shows several things, any
candidate is selected, or an answer is guessed. That represents a good but careless teacher: the policy that it trains is
good when greedy and can improve when sampled, which RL needs. Every figure from such a run reports the setting.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from gog import agent, regions
from gog.dataset import Question
from gog.images import Image
from gog.trajectory import Observation, Segment
from gog_recipes.world import entities

SLIPS = ("glance", "pick", "pick", "guess")
"""Kinds of slips; one is drawn, `pick` twice as often as the others."""
CHARACTERS_PER_TOKEN, PIXELS_PER_TOKEN = 3, 28 * 28
"""Fewer than a token of English text, and as many as a token of a Qwen-VL image."""
MAX_RETRIES = 2
"""Failed tool calls after which it guesses."""


class ScriptedTeacher:
    """gog.agent.Session for one question. Call `follow` with the episode before it runs."""

    def __init__(self, question: Question, rng: random.Random, teacher_accuracy: float, guesses: Sequence[str]) -> None:
        """
        Args:
            question: the question with its evidence marks.
            rng: decides on slips and guesses.
            teacher_accuracy: share of questions without a slip.
            guesses: what a guess is drawn from: names for a question about a name, else facts.
        """
        self.question, self.evidence, self.rng = question, question.evidence, rng
        slips = rng.random() >= teacher_accuracy and self.evidence.kind not in ("look", "text")
        self.slip = rng.choice(SLIPS) if slips else ""
        self.guesses = guesses
        self.name = self._mark("entity")
        self.relation = self._mark("relation")
        self.retries = 0

    def _mark(self, name: str) -> str:
        """A mark of the embedded world; empty if the dataset has none of this name."""
        return str((self.evidence.model_extra or {}).get(name, ""))

    def follow(self, episode: agent.Episode) -> ScriptedTeacher:
        """Reads the observations of this episode."""
        self.episode = episode
        self.used = _estimate(self.question.question, [episode.image])
        return self

    async def generate(self) -> agent.Generation:
        text = self._write()
        self.used += _estimate(text, ())
        return agent.Generation(text, finished=True)

    def _write(self) -> str:
        turns = self.episode.turns
        last = turns[-1] if turns else None
        seen = last.observation if last else None
        if last is None or seen is None:
            return self._open()
        if self.episode.answer_next:
            return self._answer_now()
        if seen.failures:
            self.retries += 1
            if self.retries > MAX_RETRIES:
                return self._guess()
            return f"<think>tool failed</think>{_action(last.text)}"
        if seen.tool == "grounding":
            return self._choose(seen)
        if last.action == "text":
            return self._read(seen)
        return self._use_name(seen)

    def _open(self) -> str:
        kind, expression = self.evidence.kind, self.evidence.expression
        if kind == "look":
            return f"<think>{expression}</think><answer>{self.question.answers[-1]}</answer>"
        if kind == "text":
            return self._search_text()
        if self.slip == "guess":
            return self._guess()
        if self._mark("things") == "1":  # the whole image shows nothing else
            return "<think>one</think><img_search><img></img_search>"
        if self.slip == "glance" or self.episode.settings.gaze == "off":
            return "<think>several</think><img_search><img></img_search>"
        return f"<think>several</think><img_search>{expression}</img_search>"

    def _choose(self, seen: Observation) -> str:
        if not seen.candidates:
            return "<think>no match</think><img_search><img></img_search>"
        if self.slip == "pick" or self.evidence.region is None:
            place = self.rng.randrange(len(seen.candidates))
        else:
            right = regions.containing([candidate.box for candidate in seen.candidates], self.evidence.region)
            place = right or 0
        number = seen.candidates[place].number
        return f"<think>{self.evidence.expression} {number}</think><img_search>#{number}</img_search>"

    def _use_name(self, seen: Observation) -> str:
        if not seen.results:
            return self._guess()
        self.name = seen.results[0].title
        if self.evidence.kind == "name":
            return f"<think>name {self.name}</think><answer>{self.name}</answer>"
        return self._search_text()

    def _search_text(self) -> str:
        return f"<think>{self.name}</think><text_search>{self.name}</text_search>"

    def _read(self, seen: Observation) -> str:
        attribute = self._mark("attribute")
        words = seen.results[0].text.split() if seen.results else []
        if self.relation and not self.episode.answer_next:
            related = _value(words, self.relation)
            if related is None:
                return self._guess()
            self.name, self.relation = related, ""
            return self._search_text()
        value = _value(words, attribute)
        if value is None:
            return self._guess()
        return f"<think>{attribute} {value}</think><answer>{value}</answer>"

    def _guess(self) -> str:
        thought = self.name or self.evidence.expression
        return f"<think>{thought}</think><answer>{self.rng.choice(self.guesses)}</answer>"

    def _answer_now(self) -> str:
        """The best answer without another search."""
        seen = self.episode.turns[-1].observation
        if seen is not None and seen.tool == "textSearch":
            return self._read(seen)
        if seen is not None and seen.tool == "imageSearch" and seen.results and self.evidence.kind == "name":
            return self._use_name(seen)
        return self._guess()

    def room(self) -> int:
        return self.episode.settings.max_tokens - self.used

    async def encode(self, body: str, images: Sequence[Image], note: str = "") -> Segment:
        """As many tokens as a real tokenizer would need, roughly: an over-long page must not become a demonstration."""
        return Segment(source="observation", tokens=(0,) * _estimate(body + note, images))

    def observe(self, observation: Segment) -> None:
        self.used += len(observation.tokens)

    def segments(self) -> tuple[Segment, ...]:
        return ()  # a demonstration is text; the recipe that trains on it has the tokenizer

    def close(self) -> None:
        return None


def _estimate(text: str, images: Sequence[Image]) -> int:
    """Tokens of text and images, estimated without a tokenizer."""
    pixels = sum(image.width * image.height for image in images)
    return len(text) // CHARACTERS_PER_TOKEN + pixels // PIXELS_PER_TOKEN


def _value(words: Sequence[str], key: str) -> str | None:
    """The word after a key that is not outdated; None without one."""
    places = [
        at for at, word in enumerate(words[:-1]) if word == key and (not at or words[at - 1] != entities.OUTDATED)
    ]
    return words[places[0] + 1] if places else None


def _action(text: str) -> str:
    return text[text.index("</think>") + len("</think>") :]
