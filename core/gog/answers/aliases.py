"""Names that mean the same thing everywhere: abbreviations and official renames.

A name is listed only if none of its forms means anything else in an answer; `America`, `Holland` and `Britain` are not.
"""

from __future__ import annotations

from gog import languages
from gog.answers import tokens

_ALIASES = """
United States of America = United States = USA = U.S. = U.S.A.
United Kingdom = UK = U.K. = United Kingdom of Great Britain and Northern Ireland
United Arab Emirates = UAE
Soviet Union = USSR = U.S.S.R. = Union of Soviet Socialist Republics
European Union = EU
United Nations = UN = United Nations Organization
North Atlantic Treaty Organization = NATO
World Health Organization = WHO = World Health Organisation
National Aeronautics and Space Administration = NASA
European Space Agency = ESA
Federal Bureau of Investigation = FBI
Central Intelligence Agency = CIA
Massachusetts Institute of Technology = MIT
University of California, Los Angeles = UCLA
British Broadcasting Corporation = BBC
National Basketball Association = NBA
National Football League = NFL
Fédération Internationale de Football Association = FIFA
World War I = WWI = WW1 = First World War = World War One
World War II = WWII = WW2 = Second World War = World War Two
New York City = NYC = City of New York
Washington, D.C. = Washington DC
Ho Chi Minh City = Saigon
Mumbai = Bombay
Beijing = Peking
Myanmar = Burma
Czech Republic = Czechia
Côte d'Ivoire = Ivory Coast
Cabo Verde = Cape Verde
Eswatini = Swaziland = Kingdom of Eswatini
Türkiye = Turkey = Republic of Turkey
Timor-Leste = East Timor
Sri Lanka = Ceylon
South Korea = Republic of Korea
North Korea = Democratic People's Republic of Korea = DPRK
Democratic Republic of the Congo = DR Congo = DRC
People's Republic of China = PRC
Deoxyribonucleic acid = DNA
Ribonucleic acid = RNA
Carbon dioxide = CO2
Human immunodeficiency virus = HIV
Light-emitting diode = LED
Central processing unit = CPU
Graphics processing unit = GPU
Gross domestic product = GDP
Artificial intelligence = AI
kilometres per hour = km/h = kph
John F. Kennedy = JFK
Franklin D. Roosevelt = FDR = Franklin Delano Roosevelt
Leonardo da Vinci = Leonardo Da Vinci = da Vinci
William Shakespeare = Shakespeare
"""
_LINES = [
    line
    for text in (_ALIASES, *(each.answers.aliases for each in languages.every()))
    for line in text.strip().splitlines()
]
CLASSES = {
    form: number for number, line in enumerate(_LINES) for name in line.split("=") for form in tokens.variants(name)
}
"""Number of its line, by the tokens of a name."""
_WORDS = frozenset((word,) for word in ("who", "us", "un", "mit", "led", "ai", "esa", "eu"))
"""Abbreviations that are also words, which must be written in capitals."""


def equal(first: str, second: str) -> bool:
    """Whether two names are on one line."""
    return not _lines(first).isdisjoint(_lines(second))


def is_word_and_abbreviation(first: str, second: str) -> bool:
    """Whether one text is an abbreviation in capitals and the other a word of the same letters: `U.S.` and the film `Us`."""
    (form, *_), (other, *_) = tokens.variants(first) or {()}, tokens.variants(second) or {()}
    if form not in _WORDS or other not in _WORDS:
        return False
    return (first == first.upper()) != (second == second.upper())


def _lines(text: str) -> set[int]:
    is_upper = text == text.upper()
    return {CLASSES[form] for form in tokens.variants(text) if form in CLASSES and (is_upper or form not in _WORDS)}
