"""Names of people: order, titles and middle initials.

Another first name, a further middle name or a suffix (`Jr.`, `III`) is another person.
"""

from __future__ import annotations

import re

from gog.answers import tokens

TITLES = ("dr", "doctor", "prof", "professor", "sir", "dame", "mr", "ms")
"""Titles that are dropped before a name of two words or more. `Mrs` is not one: Mrs. John Smith is not John Smith."""
RANKS = frozenset(
    (*TITLES, "mrs", "king", "queen", "prince", "princess", "lord", "lady", "saint", "st", "pope", "emperor")
)
"""Words that are before a name and never after it, whatever is a family name somewhere: King Charles is not Charles King."""
WHO = re.compile(r"\b(who|whom|whose|person|author|artist|actor|actress|player|director|singer|composer"
                 r"|president|painter|writer|scientist|poet)\b", re.IGNORECASE)  # fmt: skip
"""Questions whose answer may be a person."""
GIVEN_NAMES = frozenset(
    (  # noqa: SIM905
        "adam alan albert alexander alfred andrew anthony arthur barry benjamin bruce carl charles christian "
        "craig curtis dan daniel david dean dennis douglas duncan edward elliott eric francis frank franklin "
        "frederick gary george gordon graham grant gregory harry harvey henry howard hugh isaac jack jackson "
        "jacob james jason jeremy joel john jordan joseph justin keith kelly kenneth kevin kim lawrence lee "
        "leon leslie lewis lloyd louis lucas luke marcus mark marshall martin mason matthew max michael "
        "mitchell morgan neil nelson nicholas noel norman oliver owen patrick paul peter philip phillip ralph "
        "ray raymond richard robert robin roger ross roy russell ryan samuel scott sean simon spencer stanley "
        "stephen steven stewart stuart taylor terry thomas tony tyler vernon victor vincent walter warren "
        "wayne william wilson alice anne ashley beth carol elizabeth grace heather hope jean joy katherine "
        "kay laura lynn maria marie mary rose ruth sarah kelly lee"
    ).split()
)
"""Names that are given names and family names, so that their order decides."""


def equal(question: str, accepted: str, given: str) -> bool:
    """Whether two names are certainly of one person."""
    left, right = _plain(accepted), _plain(given)
    if not left or not right:
        return False
    if left == right:
        return True
    return bool(WHO.search(question)) and (_swapped(left, right) or _initials(left, right))


def _plain(text: str) -> tuple[str, ...]:
    """The words of a name, first name first, without its title; none for a text that is no name."""
    text = tokens.clean(text)
    match = re.fullmatch(r"([^,]+),\s*([^,]+)", text)
    suffix = match and re.fullmatch(r"(jr|sr|junior|senior|[IVX]+)\.?", match[2], re.IGNORECASE)
    if match and not suffix:
        words = tokens.fold(f"{match[2]} {match[1]}")
        if not 2 <= len(words) <= 4 or not _is_name(match[1]) or not _is_name(match[2]):
            return ()
    else:
        words = tokens.fold(text)
    if len(words) > 2 and words[0] in TITLES:
        words = words[1:]
    return words


def _is_name(text: str) -> bool:
    """Whether each word begins with a capital letter, small particles apart."""
    return all(word[0].isupper() or word in ("de", "von", "van", "da", "del", "di", "der") for word in text.split())


def _swapped(left: tuple[str, ...], right: tuple[str, ...]) -> bool:
    """Family name first: `Murakami Haruki`; not `Thomas James`, where both may be either."""
    if len(left) != 2 or left[0] == left[1] or left != right[::-1] or not all(word.isalpha() for word in left):
        return False
    return min(map(len, left)) > 1 and RANKS.isdisjoint(left) and not GIVEN_NAMES.issuperset(left)


def _initials(accepted: tuple[str, ...], given: tuple[str, ...]) -> bool:
    """The given name has an initial for a middle name of the accepted one: `John F. Kennedy`."""
    if len(accepted) != len(given) or len(given) < 3 or (accepted[0], accepted[-1]) != (given[0], given[-1]):
        return False
    pairs = list(zip(accepted[1:-1], given[1:-1], strict=True))
    return all(a == b or (len(b) == 1 and b.isalpha() and a.startswith(b)) for a, b in pairs)
