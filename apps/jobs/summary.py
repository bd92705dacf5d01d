"""Summaries: the sentences of some texts that say most of what the texts say.

Owns the division into sentences and words, the score of a sentence, and the choice. Pure: the same texts and topics
have the same summary, on every machine. Must never know where texts come from.

How: a word weighs by how often it comes, and more if it is one of the topics; a sentence scores the mean weight of its
words, more if it stands at the beginning of its text. The best are taken one after another, without those that repeat
what was taken, and told in the order of the texts.
Cost: one pass over the words, then for each chosen sentence one over the candidates, of which there are
`MAX_CANDIDATES`: about 0.2 s for 1 MB.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

MOST_SENTENCES = 5
MOST_KEYWORDS = 8
MAX_SENTENCE_CHARACTERS = 500
MIN_WORDS = 5
MAX_CANDIDATES = 300
MAX_REPEATED = 0.5  # share of a sentence's words that may have been said in one that was taken
TOPIC_WEIGHT = 6.0
FIRST_WEIGHT = 0.5  # more for the first sentence of a text, less for each that follows

_WORD = re.compile(r"[^\W\d_]{2,}(?:['’-][^\W\d_]+)*")
# An end, quotes and brackets behind it, then a space and what may begin a sentence; in some scripts without a space.
_END = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+(?=[\"'“‘(\[]?[^\Wa-z_])|(?<=[。！？])")
# Behind these a point is no end.
_SHORT = re.compile(
    r"(?:\b(?:mr|mrs|ms|dr|prof|st|vs|etc|e\.g|i\.e|fig|inc|ltd|co|jr|sr|gen|col|approx|bzw|z\.b|d\.h|u\.s)|"
    r"\b[A-Z])\.$",
    re.IGNORECASE,
)
# Words that tell nothing of what a text is about.
_COMMON_WORDS = (
    "a about above after again all also although am an and any are as at be because been before being below between "
    "both but by can cannot could did do does doing down during each even few for from further get had has have having "
    "he her here hers him his how however i if in into is it its itself just like made make many may me might more "
    "most much must my new no nor not now of off on once one only or other our out over own per said same says she "
    "should since so some still such than that the their them then there these they this those through to too two "
    "under until up upon us use used very was we well were what when where which while who whom why will with within "
    "without would year years you your aber als am auch auf aus bei bis das dass dem den der des die durch ein eine "
    "einem einen einer er es für hat ich ihr im ist mit nach nicht noch nur oder sein sich sie sind so um und uns von "
    "vor war was wenn werden wie wir wird zu zum zur über"
)
_COMMON = frozenset(_COMMON_WORDS.split())


class Sentence(NamedTuple):
    """A sentence: of which text, which of its sentences, how it reads, and its telling words."""

    text: int
    place: int
    reading: str
    words: frozenset[str]


class Summary(NamedTuple):
    """`sentences` as (number of the text, sentence), in the order of the texts."""

    sentences: Sequence[tuple[int, str]]
    keywords: Sequence[str]


def words_of(text: str) -> list[str]:
    """The words, in lower case."""
    return _WORD.findall(text.lower())


def sentences_of(text: str) -> list[str]:
    """The sentences of a text, whose lines are paragraphs."""
    found: list[str] = []
    for paragraph in text.split("\n"):
        before = ""
        for piece in _END.split(paragraph):
            before = f"{before} {piece.strip()}".strip()
            if not _SHORT.search(before[-12:]):
                found.append(before)
                before = ""
        found.append(before)
    return [sentence for sentence in found if sentence]


def summarise(texts: Sequence[str], topics: Sequence[str], most: int = MOST_SENTENCES) -> Summary:
    """The summary of texts for somebody with an interest in topics."""
    counts = Counter(word for text in texts for word in words_of(text) if word not in _COMMON)
    wanted = {word for topic in topics for word in words_of(topic)}
    weights = {word: _weight(count, word in wanted) for word, count in counts.items()}
    chosen = sorted(_choose(_candidates(texts, weights), most))
    said = [(one.text, one.reading) for one in chosen] or list(islice(_beginnings(texts), most))
    return Summary(said, _keywords(counts))


def _weight(count: int, wanted: bool) -> float:
    # By the logarithm: a word that comes a hundred times is not a hundred times as telling.
    return (1.0 + math.log(count)) * (TOPIC_WEIGHT if wanted else 1.0)


def _keywords(counts: Counter[str]) -> list[str]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [word for word, _ in ordered[:MOST_KEYWORDS]]


def _candidates(texts: Sequence[str], weights: dict[str, float]) -> list[tuple[float, Sentence]]:
    """The best sentences with their scores, the best first."""
    scored = [
        (_score(sentence, length, weights), sentence)
        for sentence, length in _sentences(texts)
        if length >= MIN_WORDS and len(sentence.reading) <= MAX_SENTENCE_CHARACTERS
    ]
    scored.sort(key=lambda item: (-item[0], item[1][:2]))
    return scored[:MAX_CANDIDATES]


def _beginnings(texts: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Where nothing is a sentence of words (a list, a script without spaces): what the texts begin with."""
    for number, text in enumerate(texts):
        for reading in sentences_of(text)[:1]:
            yield number, reading[:MAX_SENTENCE_CHARACTERS]


def _sentences(texts: Sequence[str]) -> Iterator[tuple[Sentence, int]]:
    """Each sentence, and how many words it has."""
    for number, text in enumerate(texts):
        for place, reading in enumerate(sentences_of(text)):
            words = words_of(reading)
            yield Sentence(number, place, reading, frozenset(words) - _COMMON), len(words)


def _score(sentence: Sentence, length: int, weights: dict[str, float]) -> float:
    # Divided by a little more than the words: very short sentences are often captions.
    weight = sum(weights.get(word, 0.0) for word in sentence.words) / (length + 3)
    return weight * (1.0 + FIRST_WEIGHT / (1.0 + sentence.place))


def _choose(candidates: Sequence[tuple[float, Sentence]], most: int) -> list[Sentence]:
    chosen: list[Sentence] = []
    for score, sentence in candidates:
        if len(chosen) == most:
            break
        if score > 0 and not any(_repeats(sentence, other) for other in chosen):
            chosen.append(sentence)
    return chosen


def _repeats(sentence: Sentence, other: Sentence) -> bool:
    # By number, not by weight: that both speak of the topic is no repetition.
    shared = len(sentence.words & other.words)
    return shared > MAX_REPEATED * min(len(sentence.words), len(other.words))
