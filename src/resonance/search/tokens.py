"""Words: what the full-text index is given of a text, and what it is asked for a question.

SQLite's tokenizer splits at everything that is neither letter, digit nor mark, which leaves scripts
without spaces between words in one piece, and drops what has no letters. So a text goes through
:func:`plain` first, and a question too: both sides take the same steps, and take them here.
"""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from typing import NamedTuple

from resonance._core import foreign_runs, humps_apart, signs_as_words

RULES = 3
"""Raised whenever the same text would be indexed in another way, so that indexes are made anew."""

TOKENIZER = "unicode61 remove_diacritics 2 categories 'L* N* Co M*'"

MOST_TERMS = 64
"""A question is asked for so many different words at most; more of them find no better."""

# Written without spaces between words: Thai, Lao, Burmese, Khmer, kana, Han; and Korean, whose particles
# stick to its words.
_DENSE = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
)
_DENSE_RUN = re.compile(rf"[{_DENSE}]+")
# Below U+2600 only what Unicode lists as emoji, but for © and ®, which stick to names: plain arrows and boxes
# stand between words, in notes more often than not. https://unicode.org/Public/UCD/latest/ucd/emoji/
_EMOJI = re.compile(
    "[\u2194-\u2199\u21a9\u21aa\u231a\u231b\u2328\u23cf\u23e9-\u23f3\u23f8-\u23fa\u25aa\u25ab\u25b6\u25c0"
    "\u25fb-\u25fe\u2600-\u27bf\u2934\u2935\u2b00-\u2bff\u3030\u303d\U0001f000-\U0001faff]"
)
# Vowel points and accents that most writers leave out, soft hyphens, the tatweel, the joiner, and marks that
# only style an emoji.
_UNWRITTEN = re.compile(
    "[\u00ad\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670"
    "\u06d6-\u06dc\u06df-\u06e8\u06ea-\u06ed\u200d\ufe00-\ufe0f]"
)
# Letters with a stroke, without their dot, or grown together: Unicode takes none of these apart.
_APART = {"\u0131": "i", "ł": "l", "ø": "o", "đ": "d", "æ": "ae", "œ": "oe"}
_SURROGATE = re.compile("[\ud800-\udfff]")
_QUOTED = re.compile(r'"([^"]*)"')
# Between words; what else is no letter, as in well-known and foo_bar, holds the parts of one together.
_BETWEEN = re.compile(r"[\s!$%&()*,/:;<=>?@\[\\\]^`{|}~]+")
_APOSTROPHE = re.compile("['\u2019]")


class Question(NamedTuple):
    """A text asked for, as expressions of FTS5.

    ``any``: any of the words; None if there is none. ``all``: the phrases in quotation marks, which must
    all occur. ``dropped`` counts words and phrases beyond :data:`MOST_TERMS`.
    """

    any: str | None
    all: tuple[str, ...]
    dropped: int


def plain(text: str) -> str:
    """A text with every word of it in a form that the tokenizer keeps.

    Scripts without spaces become overlapping pairs of characters, with the last one repeated alone, so
    that each character begins a word. C++ and C# keep their signs, as words, also if Markdown escapes them.
    """
    text = signs_as_words(text.replace("\\#", "#").replace("\\+", "+"))
    if text.isascii():
        return text
    # What begins with a character of ASCII is normalised as if nothing stood before it.
    pieces: list[str] = []
    at = 0
    for start, end in foreign_runs(text):
        pieces += text[at:start], _foreign(text[start:end])
        at = end
    return "".join((*pieces, text[at:]))


def _foreign(text: str) -> str:
    text = _EMOJI.sub(lambda match: f" emoji{ord(match[0]):x} ", _folded(text))
    return _DENSE_RUN.sub(lambda match: f" {' '.join(_pairs(match[0]))} ", text)


def _folded(text: str) -> str:
    """Without case and accents: SQLite leaves them on all that is not Latin, and knows few capitals of this
    century."""
    text = _UNWRITTEN.sub("", unicodedata.normalize("NFKD", text)).casefold()
    for letter, plain_letters in _APART.items():
        text = text.replace(letter, plain_letters)
    return unicodedata.normalize("NFKC", text)


@functools.lru_cache(maxsize=1024)
def names(text: str) -> str:
    """As :func:`plain`, for titles and other names: ``camelCase`` is also found by its parts."""
    parts = humps_apart(text)
    return plain(text if parts == text else f"{text} {parts}")


def question(text: str) -> Question:
    """What to ask the index for a text that somebody typed. No character of it is syntax but ``"``."""
    text = _SURROGATE.sub(" ", text.replace("\0", " "))
    quoted = dict.fromkeys(phrase for part in _QUOTED.findall(text) if (phrase := _phrase(part)))
    phrases = tuple(quoted)[:MOST_TERMS]
    terms = dict.fromkeys(phrases)
    dropped = len(quoted) - len(phrases)
    for word in dict.fromkeys(_BETWEEN.split(_QUOTED.sub(" ", text))):
        # The words of l'intelligence and Alice's are intelligence and Alice, wherever they stand.
        parts = [part for part in _APOSTROPHE.split(word) if word != part and len(part) > 1]
        for term in itertools.chain.from_iterable(map(_terms, (word, *parts))):
            if term not in terms and len(terms) >= MOST_TERMS:
                dropped += 1
            else:
                terms[term] = None
    return Question(" OR ".join(terms) or None, phrases, dropped)


def _terms(word: str) -> list[str]:
    """The terms of something between spaces: the pairs of each dense run, and the rest as one phrase."""
    if word.isascii():
        return [phrase] if (phrase := _phrase(word)) else []
    terms = []
    rest = _folded(word)
    for match in _DENSE_RUN.finditer(rest):
        pairs = _pairs(match[0])
        terms += [f'"{pair}"' for pair in pairs[:-1]] or [f'"{pairs[0]}" *']
    others = (_phrase(piece) for piece in _DENSE_RUN.sub(" ", rest).split())
    return terms + [phrase for phrase in others if phrase]


def _phrase(text: str) -> str | None:
    """Words that must stand side by side; None where there are none."""
    words = plain(text).replace('"', " ").split()
    if not any(character.isalnum() for word in words for character in word):
        return None
    prefix = ""
    if _DENSE_RUN.fullmatch(words[-1]):
        # The last character stands alone only at the end of its run; there a longer one may go on.
        if len(words) > 1 and len(words[-2]) == 2 and words[-2].endswith(words[-1]):
            words.pop()
        else:
            prefix = " *"
    return f'"{" ".join(words)}"{prefix}'


def _pairs(run: str) -> list[str]:
    return [run[at : at + 2] for at in range(len(run))]
