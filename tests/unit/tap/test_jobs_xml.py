"""Documents of jobs: valid against the schema of UWS whatever is in a job, and saying what is in it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from qengine.catalog.database import now
from qengine.catalog.jobs import Job, Phase
from qengine.tap import jobs_xml
from tests.support.uws_schema import uws_schema

UWS = "{http://www.ivoa.net/xml/UWS/v1.0}"
AT = datetime(2030, 1, 1, 12)
RESULT = {
    "file": "result-1.csv", "media_type": "text/csv", "rows": 3, "bytes": 9, "is_overflow": True, "maxrec": 3,
    "warnings": ["<b> & more"], "snapshots": {"demo": 1},
}  # fmt: skip
ERROR = {"code": "timeout", "summary": "it took <too> long", "message": "", "hint": "", "retryable": False}

words = st.text(st.characters(codec="utf-8"), max_size=30)
times = st.none() | st.datetimes(datetime(1, 1, 1), datetime(9999, 1, 1))
jobs = st.builds(
    Job,
    id=st.just("0" * 32),
    owner=words,
    run_id=words,
    phase=st.sampled_from(Phase),
    created=st.datetimes(),
    started=times,
    ended=times,
    destruction=st.datetimes(),
    quote=times,
    duration_s=st.integers(0, 2**31 - 1),
    parameters=st.dictionaries(words, st.lists(words, max_size=2), max_size=3),
    result=st.just({}) | words.map(lambda text: {**RESULT, "media_type": text, "warnings": [text]}),
    error=st.just({}) | words.map(lambda text: {**ERROR, "summary": text, "retryable": len(text) % 2 == 0}),
    progress=st.dictionaries(st.sampled_from(["rows", "eta_s", "phase", "fraction"]), words | st.floats(0, 1e300) | st.none()),
    losses=st.integers(0, 2),
)


def parsed(document: str) -> etree._Element:
    root = etree.fromstring(document.encode())
    if (schema := uws_schema()) is not None:
        schema.assertValid(root)
    return root


@given(jobs)
def test_every_document_is_valid(job: Job) -> None:
    base = 'http://h/tap?a="<&>"'
    assert parsed(jobs_xml.job_document(job, base)).findtext(f"{UWS}phase") == job.phase.value
    assert len(parsed(jobs_xml.job_list([job, job], base))) == 2
    assert len(parsed(jobs_xml.parameters_document(job))) == sum(map(len, job.parameters.values()))
    parsed(jobs_xml.results_document(job, base))


def test_a_result_is_named_when_it_is_there() -> None:
    job = Job(id="0" * 32, created=AT, destruction=AT, result=RESULT)
    for phase in Phase:
        found = parsed(jobs_xml.results_document(replace(job, phase=phase), "http://h/tap"))
        assert len(found) == (phase is Phase.COMPLETED)
    done = parsed(jobs_xml.job_document(replace(job, phase=Phase.COMPLETED), "http://h/tap"))
    info = {child.tag: child.text for child in done.iterfind(f"{UWS}jobInfo/*")}
    assert info["warning"] == "<b> & more"
    assert info["truncated"] == "the result was cut at MAXREC = 3 rows; there are more"


def test_the_queue() -> None:
    job = Job(id="0" * 32, created=AT, destruction=AT, phase=Phase.QUEUED)
    (info,) = parsed(jobs_xml.job_document(job, "http://h/tap", ahead=7)).iterfind(f"{UWS}jobInfo/*")
    assert (info.tag, info.get("ahead")) == ("queue", "7")


def test_the_quote_follows_the_progress() -> None:
    job = Job(id="0" * 32, created=AT, destruction=AT, quote=AT, phase=Phase.QUEUED, progress={"eta_s": 100.0})
    assert jobs_xml.quote(job, at=AT) == AT
    running = jobs_xml.quote(replace(job, phase=Phase.EXECUTING))
    assert running is not None
    assert abs(running - now() - timedelta(seconds=100)) < timedelta(seconds=5)
    late = replace(job, phase=Phase.EXECUTING, progress={"eta_s": None})
    assert jobs_xml.quote(late, at=AT - timedelta(seconds=1)) == AT
    # what runs for longer than was expected does not end in the past
    assert jobs_xml.quote(late, at=AT + timedelta(seconds=1)) is None
    assert jobs_xml.quote(replace(late, phase=Phase.COMPLETED), at=AT + timedelta(seconds=1)) == AT
