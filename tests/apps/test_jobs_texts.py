"""What a worker of `jobs` reads and makes of it: files, URLs, pages, texts, summaries; messages that are reports."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.jobs import work
from apps.jobs.extraction import cleaned, extract
from apps.jobs.model import Finished, GoesBack, NotItsOwn, State, Update, topic_of
from apps.jobs.reading import Content, Sources, Unreadable
from apps.jobs.reports import Reports
from apps.jobs.store import Job
from apps.jobs.summary import MAX_SENTENCE_CHARACTERS, sentences_of, summarise
from apps.jobs.watch import Watch
from bridges.mapping import Message, Unmappable
from bridges.outbound import Outbound
from handlers.streams import StreamCall
from server.event import Event
from server.rights import DEVELOPMENT
from tests.apps.jobbing import ARTICLE, DONE, WORKING, Site

HTML = "text/html; charset=utf-8"


# --- texts


def test_of_a_page_its_text_is_left() -> None:
    """J2: without what is for machines or for finding one's way."""
    text = extract(ARTICLE.encode(), HTML)
    assert text.title == "Storage & power"
    lines = text.body.split("\n")
    assert lines[:2] == [
        "Batteries",
        "Large batteries stored more energy last year than ever before, the operators of the grid said.",
    ]
    assert len(lines) == 4
    assert "nothing of this" not in text.body


@pytest.mark.parametrize(
    ("content", "content_type", "wanted"),
    [
        (b"<p>caf\xe9", "text/html; charset=ISO-8859-1", "caf\u00e9"),
        ("<p>café".encode(), "text/html", "café"),
        (b'<meta charset="windows-1252"><p>\x93x\x94', "text/html", "\u201cx\u201d"),
        ("\ufeff<p>x".encode("utf-16"), "text/html", "x"),
        (b"<p>caf\xe9", "text/html; charset=no-such-thing", "caf\u00e9"),
        (b"<p>x", "text/html; charset=base64", "x"),
        (b"<form>all<p>of it</form>", "text/html", "all\nof it"),
        (b"a &lt;b&gt; &amp; c", "text/html", "a <b> & c"),
        (b"a &lt;b&gt;", "text/plain", "a &lt;b&gt;"),
        (b"<p>one<br>two</p><nav>x</p>three", "text/html", "one\ntwo"),
        (b"<script>if (a < b) '</p>'</script>y", "text/html", "y"),
        (b"x\x00\x1b[31m\xe2\x80\x8b\xe2\x80\xaey &#0; &#xD800;", "text/html", "x[31my \ufffd \ufffd"),
        (b"", "text/html", ""),
    ],
)
def test_what_a_text_is_in_follows_from_what_it_says_of_itself(content: bytes, content_type: str, wanted: str) -> None:
    """J2."""
    assert extract(content, content_type).body == wanted


@pytest.mark.parametrize(
    "piece", ["<a ", "<a b='", "<!--", "<![CDATA[", "</", "<?", "<nav>", "<script>", "&", "<p></nav>", "<a b=c "]
)
def test_a_page_costs_no_more_than_its_length(piece: str) -> None:
    """What is left open is not looked for again and again: twice as much takes about twice as long."""

    def seconds(size: int) -> float:
        page = (piece * size)[:size].encode() + b">end"
        began = time.process_time()
        extract(page, HTML)
        return time.process_time() - began

    assert seconds(131_072) < 6 * seconds(65_536) + 0.3


@given(st.text(st.characters(), max_size=300))
def test_any_text_can_be_cleaned_extracted_and_summed_up(text: str) -> None:
    content = text.encode("utf-8", "surrogatepass")
    for content_type in ("text/html", "text/plain"):
        found = extract(content, content_type)
        assert cleaned(found.body) == found.body
        found.body.encode()
        summary = summarise([found.body], ["x"])
        assert all(sentence in found.body.split("\n") or sentence in found.body for _, sentence in summary.sentences)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("One is here. Two is there! Is three? Yes.", ["One is here.", "Two is there!", "Is three?", "Yes."]),
        ("Dr. Smith of the U.S. agency came. He left.", ["Dr. Smith of the U.S. agency came.", "He left."]),
        ("It costs 3.50 a piece, e.g. today. More", ["It costs 3.50 a piece, e.g. today.", "More"]),
        ("\u201cWe will see.\u201d He went.", ["\u201cWe will see.", "He went."]),
        ("A headline\nA paragraph.", ["A headline", "A paragraph."]),
        ("雨が降った。風も吹いた。", ["雨が降った。", "風も吹いた。"]),
        ("", []),
    ],
)
def test_sentences_end_where_a_reader_would_say(text: str, wanted: list[str]) -> None:
    """J2."""
    assert sentences_of(text) == wanted


def test_a_summary_says_what_the_texts_say_most_of_in_their_order_and_once() -> None:
    """J2: the sentences about what comes up again and again; what was said already is not said again."""
    solar = "Solar power grew faster than coal in every country of the union."
    storage = "Storage of solar power in batteries grew too, and helps when the sun is down."
    first = f"{solar} The minister wore a green tie on that day. {storage} Somebody laughed about it for a while."
    second = f"Yesterday it was said again. {solar} Nobody was surprised by the weather of the week."
    summary = summarise([first, second], ["solar"], most=2)
    assert summary.sentences == [(0, solar), (0, storage)]
    assert summary.keywords[0] in ("solar", "power", "grew")
    of_interest = (1, "Nobody was surprised by the weather of the week.")
    assert of_interest in summarise([first, second], ["weather"], most=2).sentences


def test_where_nothing_is_a_sentence_of_words_the_beginning_stands_for_it() -> None:
    """J2."""
    assert summarise(["雨が降った。風も吹いた。", "short"], ["x"]).sentences == [(0, "雨が降った。"), (1, "short")]
    [(_, only)] = summarise(["x" * 9_000], ["x"]).sentences
    assert len(only) == MAX_SENTENCE_CHARACTERS
    assert summarise([""], ["x"]).sentences == []


# --- sources


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With articles, and with what leads out of it."""
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (inside / "ars-technica.html").write_text(ARTICLE)
    (inside / "notes.txt").write_text("x" * 100)
    (inside / ".hidden.txt").write_text("secret")
    (inside / "config.yaml").write_text("secret")
    (inside / "link.txt").symlink_to("../secret.txt")
    (inside / "deeper").mkdir()
    (inside / "deeper.txt").mkdir()
    (inside / "deeper" / "x.txt").write_text("secret")
    os.mkfifo(inside / "pipe.txt")
    return inside


def test_a_name_is_a_file_of_the_folder_with_or_without_its_ending(folder: Path) -> None:
    """J2."""
    sources = Sources(str(folder), Outbound(), 50, 60)
    assert run(sources.read("ars-technica")) == Content(ARTICLE.encode()[:50], "text/html")
    assert run(sources.read("notes.txt")) == Content(b"x" * 50, "text/plain")


@pytest.mark.parametrize(
    "name",
    [
        "../secret.txt", "..", ".", "/etc/passwd", "deeper/x.txt", "deeper", "link", "link.txt", ".hidden",
        "config.yaml", "pipe", "none", "notes.txt\x00.html", "..\\secret.txt",
        "%2e%2e/secret.txt", "notes.txt/", " ", "\u2025/secret",
    ],
)  # fmt: skip
def test_no_name_leads_out_of_the_folder(folder: Path, name: str) -> None:
    """J2, S48."""
    with pytest.raises(Unreadable) as caught:
        run(Sources(str(folder), Outbound(), 50, 60).read(name))
    assert "secret" not in caught.value.reason


def test_a_worker_without_a_folder_reads_no_files() -> None:
    """J2."""
    with pytest.raises(Unreadable, match="reads no files"):
        run(Sources("", Outbound(), 50, 60).read("passwd"))


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.close()


def test_a_url_is_read_and_what_is_no_text_is_not(site: Site) -> None:
    """J2, S48: redirects are judged like the first address; only so often is one address asked."""
    site.pages |= {
        "/moved": (302, "text/html", b""),
        "/picture": (200, "image/png", b"x"),
        "/plain": (200, "text/plain", b"x" * 900),
    }
    outbound = Outbound(ports=[site.port], allow_private=True, max_body_bytes=100)
    sources = Sources("", outbound, 100, 4)
    assert run(sources.read(site.url("/plain"))).content == b"x" * 100
    for path, reason in (
        ("/moved", "port 80 is none|not a public one"),
        ("/none", "HTTP status 404"),
        ("/picture", "neither"),
        ("/plain", "at most"),
    ):
        with pytest.raises(Unreadable, match=reason):
            run(sources.read(site.url(path)))
    assert site.asked == ["/plain", "/moved", "/none", "/picture"]


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "gopher://x/", "HTTP://127.0.0.1/", "http://169.254.169.254/", "http://u:p@example.com/"],
)
def test_what_must_not_be_asked_is_not(url: str) -> None:
    """S48."""
    with pytest.raises(Unreadable):
        run(Sources("/", Outbound(), 100, 60).read(url))


# --- the work


class Told:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.said: list[tuple[str, int]] = []

    async def say(self, stage: str, progress: int, message: str) -> None:
        assert message
        self.said.append((stage, progress))


def test_a_job_goes_through_its_stages_and_tells_of_each_source(folder: Path) -> None:
    """J2: progress never falls; a source that can't be read is told of, and the others are summed up."""
    told = Told()
    order = {
        "topics": ["batteries"],
        "sources": ["ars-technica", "none"],
        "texts": ["A short text about batteries here."],
    }
    message, data = run(work.do(order, Sources(str(folder), Outbound(), 9_000, 60), told))
    assert [stage for stage, _ in told.said] == ["retrieving-content"] * 3 + ["processing-articles"] * 3 + [
        "generating-summary"
    ]
    assert [progress for _, progress in told.said] == sorted(progress for _, progress in told.said)
    assert message == "4 sentences of 2 of 3 sources"
    assert {one["source"] for one in data["summary"]} == {"text 1", "ars-technica"}
    assert data["sources"][1:] == [
        {"source": "ars-technica", "title": "Storage & power", "words": 50},
        {"source": "none", "problem": "there is no such file"},
    ]


def test_a_job_of_which_nothing_can_be_read_fails_with_the_reason(folder: Path) -> None:
    """J2."""
    (folder / "empty.txt").write_text(" \n ")
    order = {"topics": ["x"], "sources": ["empty", "none"], "texts": []}
    with pytest.raises(work.Failed) as caught:
        run(work.do(order, Sources(str(folder), Outbound(), 9_000, 60), Told()))
    assert caught.value.reason == "nothing could be read; empty: there is no text in it"
    assert [one["problem"] for one in caught.value.data["sources"]] == [
        "there is no text in it",
        "there is no such file",
    ]


def test_a_result_fits_into_a_report_whatever_is_in_it(folder: Path) -> None:
    """J2: of long words in a script of many bytes as much as there is room for."""
    title = "".join(f"<title>{'語' * 300}</title>")
    for number in range(20):
        sentence = " ".join(["語" * 40 + chr(0x4E00 + 50 * number + word) for word in range(8)])
        (folder / f"{'a' * 100}{number}.html").write_text(f"{title}<p>{sentence}.")
    order = {"topics": ["x"], "sources": [f"{'a' * 100}{number}" for number in range(20)], "texts": []}
    _, data = run(work.do(order, Sources(str(folder), Outbound(), 9_000, 60), Told()))
    assert data["summary"]
    Update.model_validate(DONE | {"data": data})


# --- reports in messages


STATE = State("a1", "processing", 1, "", "", "2026-01-01T00:00:00.000Z")
LATER = "2026-01-01T00:00:01.000Z"


def reports(outcome: State | Exception | None = STATE) -> tuple[Reports, list[tuple[str, Update]]]:
    """Reports whose every report has this outcome, and what has come."""
    came: list[tuple[str, Update]] = []

    async def take(job_id: str, update: Update) -> State | None:
        came.append((job_id, update))
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return Reports(take), came


@pytest.mark.parametrize("of", [str, str.encode], ids=["text", "bytes"])
def test_a_message_is_a_report(of: Callable[[str], Any]) -> None:
    """J4: the job is named in the data, in the attributes, or in both."""
    found, came = reports()
    run(found.take(of(json.dumps(WORKING | {"jobId": "a1"})), {}))
    run(found.take(of(json.dumps(WORKING)), {"jobId": "a1"}))
    run(found.take(of(json.dumps(WORKING | {"jobId": "a1"})), {"jobId": "a1", "other": "x"}))
    assert [(job_id, update.progress) for job_id, update in came] == [("a1", 40)] * 3
    assert (found.taken, found.refused) == (3, 0)


def test_a_channel_of_redis_names_the_job_and_so_does_an_attribute_of_pubsub() -> None:
    """J4."""
    found, came = reports()
    run(found.from_redis(Message("job:a1:updates", json.dumps(WORKING).encode(), separator=":")))
    run(found.from_pubsub(Message("projects/p/subscriptions/s", json.dumps(WORKING).encode(), {"jobId": "a2"})))
    assert [job_id for job_id, _ in came] == ["a1", "a2"]


@pytest.mark.parametrize(
    ("data", "attributes", "field"),
    [
        (b"\xff", {}, "body"),
        ("[]", {}, "body"),
        ("{}", {}, "jobId"),
        ('{"jobId": 7}', {}, "jobId"),
        (json.dumps(WORKING | {"jobId": "a2"}), {"jobId": "a1"}, "jobId"),
        (json.dumps(WORKING | {"progress": 101}), {"jobId": "a1"}, "progress"),
        (json.dumps(WORKING | {"message": ["secret"]}), {"jobId": "a1"}, "message"),
    ],
)
def test_what_is_no_report_is_refused_and_counted(data: bytes | str, attributes: dict[str, str], field: str) -> None:
    """J4: by the field, with nothing of the message in the reason."""
    found, came = reports()
    with pytest.raises(Unmappable) as caught:
        run(found.take(data, attributes))
    assert caught.value.field == field
    assert "secret" not in str(caught.value)
    assert (came, found.taken, found.refused) == ([], 0, 1)


@pytest.mark.parametrize(
    ("outcome", "field"), [(None, "jobId"), (Finished(), "status"), (GoesBack(), "status"), (NotItsOwn(), "worker")]
)
def test_a_report_that_will_never_do_is_refused_for_good(outcome: Exception | None, field: str) -> None:
    """J4."""
    found, _ = reports(outcome)
    with pytest.raises(Unmappable) as caught:
        run(found.take(json.dumps(WORKING), {"jobId": "a1"}))
    assert (caught.value.field, found.refused) == (field, 1)


# --- what a stream begins with


class Table:
    """One job, which changes while somebody looks at it if `meanwhile` says so."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.meanwhile: Callable[[], None] = lambda: None

    async def get(self, _: str) -> Job:
        self.meanwhile()
        return Job("owner", {}, self.state, 0.0, 0.0, None)


class Delivery:
    """A hub that delivers what the test says."""

    def __init__(self) -> None:
        self.listener: Callable[[Any], None] = lambda _: None
        self.channels = {"jobs": SimpleNamespace(epoch="abcdef")}

    def listen(self, _: str, listener: Callable[[Any], None], missed: Callable[[], None]) -> None:
        self.listener = listener

    def deliver(self, state: State) -> None:
        self.deliver_event(state.text())

    def deliver_event(self, data: str, *, private: bool = True) -> None:
        event = Event((topic_of(STATE.jobId),), data, private=private)
        self.listener([SimpleNamespace(event=event, position=1)])


@pytest.mark.parametrize(
    ("delivered", "in_database", "meanwhile", "first"),
    [(None, 10, None, 10), (10, 20, None, 20), (10, 10, 20, 20), (None, 10, 20, 20)],
    ids=["nothing delivered", "the log has lost it", "delivered meanwhile", "the first is delivered meanwhile"],
)
def test_a_stream_begins_with_the_newest_state_that_is_known(
    delivered: int | None, in_database: int, meanwhile: int | None, first: int
) -> None:
    """J3, J7: what was delivered before the look into the database is not newer than that; behind a failover that lost
    events it is older."""
    hub, table = Delivery(), Table(replace(STATE, progress=in_database))
    watch = Watch(cast(Any, table), cast(Any, hub), cast(Any, None), "jobs", per_minute=100)
    if delivered is not None:
        hub.deliver(replace(STATE, progress=delivered))
    if meanwhile is not None:
        table.meanwhile = lambda: hub.deliver(replace(STATE, progress=meanwhile, timestamp=LATER))
    assert json.loads(greeting(watch).removeprefix("data: "))["progress"] == first


def greeting(watch: Watch) -> str:
    """What a stream of the job begins with."""
    call = StreamCall(cast(Any, None), {"jobId": STATE.jobId}, {}, DEVELOPMENT)
    text: bytes = run(watch.admit(call)).greeting()
    return text.decode()


@pytest.mark.parametrize(
    ("data", "private"),
    [
        ("no JSON", True),
        ("[]", True),
        ('{"jobId": "a1", "status": "odd"}', True),
        ('{"jobId": "other", "status": "failed"}', True),
        ('{"jobId": "a1",\n\n"status": "failed"}', True),
        ('{"jobId": "a1", "status": "failed"}', False),
    ],
)
def test_what_is_no_state_of_ours_does_not_become_the_beginning_of_a_stream(data: str, private: bool) -> None:
    """J3: whoever may publish to the channel may publish anything, also what would be several blocks."""
    hub, table = Delivery(), Table(STATE)
    watch = Watch(cast(Any, table), cast(Any, hub), cast(Any, None), "jobs", per_minute=100)
    table.meanwhile = lambda: hub.deliver_event(data, private=private)
    assert greeting(watch) == f"data: {STATE.text()}\n\n"
