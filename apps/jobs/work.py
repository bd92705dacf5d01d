"""The work of a job: its sources are read, their texts extracted, and what they say is summed up.

Owns the stages, how far each is, and what the result says. Must never know how a report travels or who has the job.

A source that can't be read is told of in the result; only if none can be the job fails. The result fits into what a
report may hold.
Cost: one source in memory at a time, and the texts; what takes CPU runs in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from apps.jobs.extraction import PLAIN, Text, extract
from apps.jobs.model import MAX_DATA_BYTES, PROCESSING, RETRIEVING, SUMMARISING
from apps.jobs.reading import Content, Sources, Unreadable
from apps.jobs.summary import summarise, words_of
from handlers.answers import dumps

READ_UNTIL, EXTRACTED_UNTIL, SUMMARISED_AT = 50, 80, 90
MAX_NAME_CHARACTERS = 120
MAX_REASON_CHARACTERS = 160

NOTHING = Text("", "")


class Told(Protocol):
    """Whom the work tells how far it is."""

    async def say(self, stage: str, progress: int, message: str) -> None:
        """Say so."""


@dataclass(slots=True)
class Article:
    """One source of a job, on its way from its name to its text."""

    name: str
    content: Content | None = None
    text: Text = NOTHING
    words: int = 0
    problem: str = ""

    def facts(self) -> dict[str, Any]:
        """For the result."""
        if self.problem:
            return {"source": self.name[:MAX_NAME_CHARACTERS], "problem": self.problem[:MAX_REASON_CHARACTERS]}
        title = self.text.title[:MAX_NAME_CHARACTERS]
        facts = {"source": self.name[:MAX_NAME_CHARACTERS], "title": title, "words": self.words}
        return {name: value for name, value in facts.items() if value != ""}


class Failed(Exception):
    """The job can't be done. `data` tell why, by source."""

    def __init__(self, reason: str, progress: int, data: dict[str, Any]) -> None:
        super().__init__(reason)
        self.reason = reason
        self.progress = progress
        self.data = data


async def do(order: dict[str, Any], sources: Sources, told: Told) -> tuple[str, dict[str, Any]]:
    """Do a job as a claim gave it out: a last message, and the result. Raises Failed, and what `told` raises."""
    articles = await _retrieve(order, sources, told)
    await _extract(articles, told)
    good = [article for article in articles if not article.problem]
    if not good:
        reason = f"{articles[0].name[:MAX_NAME_CHARACTERS]}: {articles[0].problem}"
        raise Failed(f"nothing could be read; {reason}", EXTRACTED_UNTIL, _fitted({"sources": _facts(articles)}))
    await told.say(SUMMARISING, SUMMARISED_AT, f"choosing from {sum(article.words for article in good)} words")
    summary = await asyncio.to_thread(summarise, [article.text.body for article in good], order["topics"])
    data = {
        "summary": [{"source": good[number].name[:MAX_NAME_CHARACTERS], "text": text} for number, text in summary[0]],
        "keywords": list(summary.keywords),
        "words": sum(article.words for article in good),
        "sources": _facts(articles),
    }
    return f"{len(summary.sentences)} sentences of {len(good)} of {len(articles)} sources", _fitted(data)


def _facts(articles: Sequence[Article]) -> list[dict[str, Any]]:
    return [article.facts() for article in articles]


def _fitted(data: dict[str, Any]) -> dict[str, Any]:
    """As much of a result as may be reported: sources go first, then sentences, the last ones before others."""
    for name in ("sources", "summary"):
        while data.get(name) and len(dumps(data)) > MAX_DATA_BYTES:
            data[name].pop()
    return data


async def _retrieve(order: dict[str, Any], sources: Sources, told: Told) -> list[Article]:
    """Read every source, one after another."""
    texts: Sequence[str] = order["texts"]
    names: Sequence[str] = order["sources"]
    articles = [Article(f"text {number}", Content(text.encode(), PLAIN)) for number, text in enumerate(texts, 1)] + [
        Article(name) for name in names
    ]
    for number, article in enumerate(articles):
        done = READ_UNTIL * number // len(articles)
        await told.say(RETRIEVING, done, f"{number + 1} of {len(articles)}: {article.name[:MAX_NAME_CHARACTERS]}")
        if article.content is None:
            try:
                article.content = await sources.read(article.name)
            except Unreadable as error:
                article.problem = error.reason
    return articles


async def _extract(articles: Sequence[Article], told: Told) -> None:
    """Make texts of what came."""
    for number, article in enumerate(articles):
        done = READ_UNTIL + (EXTRACTED_UNTIL - READ_UNTIL) * number // len(articles)
        await told.say(PROCESSING, done, f"{number + 1} of {len(articles)}: {article.name[:MAX_NAME_CHARACTERS]}")
        if article.content is not None:
            article.text, article.words = await asyncio.to_thread(_text_of, article.content)
            article.content = None
        if not article.words and not article.problem:
            article.problem = "there is no text in it"


def _text_of(content: Content) -> tuple[Text, int]:
    text = extract(content.content, content.content_type)
    return text, len(words_of(text.body))
