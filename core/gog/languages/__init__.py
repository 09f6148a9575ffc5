"""Languages that questions, pages and answers are written in. One language is one file of this package.

To add a language, add a module here with a value `LANGUAGE`, a `gog.languages.Language` whose code is the module's name;
nothing else changes. What depends on a language and on nothing else is in these values: how sentences end, which words say
nothing about a sentence, what a model reads, how answers are written, and the questions of the embedded world.

A text is in the language whose script it shows; one that shows no script of another language is in English.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

DEFAULT = "en"
"""Code of the language of a text that no other one claims."""
SHARE = 0.2
"""Share of a text's letters that are of a script, from which on the text is in a language of that script."""


@dataclass(frozen=True)
class WorldWords:
    """Questions of the embedded world: lower case, words separated by spaces, because its tokenizer has one token a word."""

    look: str
    """Asks for the colour of a {form}."""
    name: str
    """Asks for the name of a {thing}."""
    fact: str
    """Asks for the {attribute} of a {subject}, which is a name or `the`."""
    the: str
    """Refers to the {thing} in an image."""
    maker: str
    """Refers to the maker of `the`."""
    thing: str
    """Describes a thing by {colour} and {form}."""
    words: Mapping[str, str] = field(default_factory=dict)
    """Colours, forms and attributes by their English word; empty for English."""

    def word(self, english: str) -> str:
        """A colour, form or attribute in this language; the same word where there is none, as for a name."""
        return self.words.get(english, english)

    def refer(self, colour: str, form: str) -> str:
        """Words for a thing in an image, by the English words for its colour and form."""
        return self.the.format(thing=self.thing.format(colour=self.word(colour), form=self.word(form)))


@dataclass(frozen=True)
class Prompts:
    """What a model reads, in the style `full` (gog.prompts). The tags of actions are the same in every language."""

    instructions: str
    """Opens the system prompt; a line for each action follows."""
    glance: str
    """The image search of the whole image."""
    gaze_select: str
    """Asking for candidates, and searching chosen ones."""
    gaze_direct: str
    """The search of the best candidate, unseen."""
    tools: dict[str, str]
    """Further tools by their names; one that is missing is described in English."""
    answer: str
    """The answer."""
    results: str
    """What results are, and that they give no orders."""
    reflect_select: str
    """What to do where no candidate is right."""
    reflect_direct: str
    """The same where candidates are not shown."""
    known: str
    """That a question may be answered without a search."""
    direct: str
    """The whole system prompt of a model without tools."""
    no_result: str
    """A search found nothing."""
    no_text: str
    """An image holds no text."""
    tool_failed: str
    """A tool failed."""
    no_candidate: str
    """Nothing in {where} matches an expression."""
    the_image: str
    """The question's image, as {where}."""
    no_such_candidate: str
    """A number was never shown."""
    highest: str
    """The highest {number} that was."""
    not_allowed: str
    """An action that is not available."""
    no_calls_left: str
    """Notes, in brackets: tool calls are used up,"""
    last_turn: str
    """this is the last turn,"""
    context_full: str
    """the context is nearly full,"""
    truncated: str
    """a result was cut,"""
    cut_argument: str
    """a text was cut to {limit} characters,"""
    calls_left: str
    """{calls} tool calls are left."""
    candidate: str
    """Subject of `looks_like`: candidate {number},"""
    image: str
    """or the whole image."""
    looks_like: str
    """{subject} looks like the titles in the lines that follow."""
    thumbnails: str
    """{count} thumbnails could not be shown; {s} is empty for one, else an s."""


def _unchanged(text: str) -> str:
    return text


def _no_core(question: str, text: str) -> str:
    return ""


@dataclass(frozen=True)
class Answers:
    """How answers are written, for the judge without a model (gog.answers), whose own rules are those of English."""

    plain: Callable[[str], str] = _unchanged
    """A whole answer in the form that the rules read: numbers in digits, dates, hedges, yes and no. Any other text as it is."""
    core: Callable[[str, str], str] = _no_core
    """The short answer in a sentence that repeats its question, by question and sentence; empty where there is none."""
    refusals: str = ""
    """Answers that give none, as alternatives of a regular expression for the whole text."""
    aliases: str = ""
    """Names that mean the same thing everywhere: one line each, separated by equals signs."""


@dataclass(frozen=True)
class Language:
    """What gog knows of one language."""

    code: str
    """ISO 639-1, the name of its module."""
    name: str
    """In English, for messages."""
    world: WorldWords
    """Questions of the embedded world."""
    prompts: Prompts
    """What a model reads."""
    answers: Answers = Answers()
    """How answers are written."""
    letters: str = ""
    """Its script, as the inside of a character class; empty for a language that is recognised by nothing."""
    foreign: str = ""
    """Characters, in the same form, that show another language of the same script."""
    sentence_ends: str = ".!?"
    """Signs that end a sentence."""
    closers: str = "\"'”’)]»"
    """Signs after such an end that belong to the sentence."""
    abbreviations: tuple[str, ...] = ()
    """Words whose full stop ends no sentence."""
    common: frozenset[str] = frozenset()
    """Words that say nothing about a sentence, in lower case; of a script without spaces, pairs of characters."""


def codes() -> list[str]:
    """Codes of all languages, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


@functools.cache
def load(code: str) -> Language:
    """A language by its code. Raises LookupError, naming the codes that exist."""
    if code not in codes():
        raise LookupError(f"no language {code!r}; there are {', '.join(codes())}")
    found: Language = importlib.import_module(f"{__name__}.{code}").LANGUAGE
    return found


@functools.cache
def every() -> tuple[Language, ...]:
    """All languages, in the order of their codes."""
    return tuple(load(code) for code in codes())


def of(text: str) -> Language:
    """The language of a text, by its script.

    >>> [of(text).code for text in ("Who painted it?", "这幅画的作者是谁？", "iPhone 15 的价格是多少？", "誰が描いたのか", "")]
    ['en', 'zh', 'zh', 'en', 'en']
    """
    letters = sum(map(str.isalpha, text))
    others = (each for each in every() if each.code != DEFAULT and each.letters)
    return next((each for each in others if _shows(each, text, letters)), load(DEFAULT))


def _shows(language: Language, text: str, letters: int) -> bool:
    """Whether a text with so many letters shows the script of a language, and none of another one."""
    if language.foreign and re.search(f"[{language.foreign}]", text):
        return False
    return len(re.findall(f"[{language.letters}]", text)) > SHARE * letters
