"""Jobs as XML: UWS 1.1 (namespace v1.0, version 1.1), in the order of its schema, with nil for times that are not known.

`jobInfo` carries what UWS has no element for, in no namespace (validators complain of one that they do not know): how far the query
is, how many rows and bytes the result has, whether MAXREC has cut it, and what the engine remarked about the statement.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from qengine.catalog.database import now
from qengine.catalog.jobs import Job, Phase
from qengine.tap.formats.votable import attribute, text
from qengine.tap.jobs import to_time

_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
_NAMESPACES = (
    'xmlns:uws="http://www.ivoa.net/xml/UWS/v1.0" xmlns:xlink="http://www.w3.org/1999/xlink"'
    ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
)
RESULT = "result"


def job_document(job: Job, base_url: str, *, ahead: int = 0) -> str:
    """Return a job with all that is known of it. `base_url` is that of the service, `ahead` how many jobs have waited longer."""
    return (
        f'{_HEAD}<uws:job {_NAMESPACES} version="1.1">\n'
        + _element("jobId", job.id)
        + (_element("runId", job.run_id) if job.run_id else "")
        + _element("ownerId", job.owner or None)
        + _element("phase", job.phase.value)
        + _time("quote", quote(job))
        + _time("creationTime", job.created)
        + _time("startTime", job.started)
        + _time("endTime", job.ended)
        + _element("executionDuration", str(job.duration_s))
        + _time("destruction", job.destruction)
        + _parameters(job, "")
        + _results(job, base_url, "")
        + _error(job)
        + _job_info(job, ahead)
        + "</uws:job>\n"
    )


def job_list(jobs: Iterable[Job], base_url: str) -> str:
    """Return references to jobs, in their order."""
    found = "".join(
        f"<uws:jobref id={attribute(job.id)} {_link(f'{base_url}/async/{job.id}')}>\n"
        + _element("phase", job.phase.value)
        + (_element("runId", job.run_id) if job.run_id else "")
        + _element("ownerId", job.owner or None)
        + _time("creationTime", job.created)
        + "</uws:jobref>\n"
        for job in jobs
    )
    return f'{_HEAD}<uws:jobs {_NAMESPACES} version="1.1">\n{found}</uws:jobs>\n'


def parameters_document(job: Job) -> str:
    """Return what the job was asked for."""
    return _HEAD + _parameters(job, f" {_NAMESPACES}")


def results_document(job: Job, base_url: str) -> str:
    """Return the list of results: one, or none."""
    return _HEAD + _results(job, base_url, f" {_NAMESPACES}")


def quote(job: Job, *, at: datetime | None = None) -> datetime | None:
    """Return when the job should end: as it was estimated, or better, as it goes. None if that is not known, or not any more, `at`
    a time (None: now)."""
    at = at or now()
    left = job.progress.get("eta_s")
    if job.phase is Phase.EXECUTING and isinstance(left, int | float):
        return at + timedelta(seconds=min(float(left), 1e9))
    is_past = job.quote is not None and job.quote < at and job.phase.is_active
    return None if is_past else job.quote


def result_url(job: Job, base_url: str) -> str:
    """Return where the result of the job is."""
    return f"{base_url}/async/{job.id}/results/{RESULT}"


def _parameters(job: Job, namespaces: str) -> str:
    found = "".join(
        f"<uws:parameter id={attribute(name)}>{text(value)}</uws:parameter>\n"
        for name, values in job.parameters.items()
        for value in values
    )
    return f"<uws:parameters{namespaces}>\n{found}</uws:parameters>\n"


def _results(job: Job, base_url: str, namespaces: str) -> str:
    found = ""
    if job.phase is Phase.COMPLETED and job.result:
        size, media_type = job.result["bytes"], job.result["media_type"]
        link = _link(result_url(job, base_url))
        found = f'<uws:result id="{RESULT}" size="{size}" mime-type={attribute(media_type)} {link}/>\n'
    return f"<uws:results{namespaces}>\n{found}</uws:results>\n"


def _error(job: Job) -> str:
    if not job.error:
        return ""
    kind = "transient" if job.error["retryable"] else "fatal"
    return (
        f'<uws:errorSummary type="{kind}" hasDetail="true">\n'
        f"<uws:message>{text(str(job.error['summary']))}</uws:message>\n</uws:errorSummary>\n"
    )


def _job_info(job: Job, ahead: int) -> str:
    parts: list[str] = []
    if job.phase is Phase.QUEUED:
        parts.append(_info("queue", {"ahead": str(ahead)}))
    if job.phase is Phase.EXECUTING and job.progress:
        parts.append(_info("progress", _plain(job.progress)))
    if job.result:
        parts.append(_info("result", _plain(job.result)))
        parts += [_info("warning", {}, str(words)) for words in job.result.get("warnings", ())]
        if job.result["is_overflow"]:
            parts.append(_info("truncated", {}, _truncation(job)))
    if job.losses:
        parts.append(_info("restarts", {"count": str(job.losses)}, "the service ended while the job was running; it ran again"))
    return f"<uws:jobInfo>\n{''.join(parts)}</uws:jobInfo>\n" if parts else ""


def _truncation(job: Job) -> str:
    return f"the result was cut at MAXREC = {job.result['maxrec']} rows; there are more"


def _plain(values: Mapping[str, Any]) -> dict[str, str]:
    """Return what attributes can carry."""
    found = {}
    for name, value in values.items():
        if isinstance(value, bool):
            found[name] = str(value).lower()
        elif isinstance(value, int | float | str):
            found[name] = str(value)
    return found


def _info(name: str, attributes: Mapping[str, str], words: str = "") -> str:
    given = "".join(f" {key}={attribute(value)}" for key, value in attributes.items())
    return f"<{name}{given}>{text(words)}</{name}>\n"


def _link(url: str) -> str:
    return f'xlink:type="simple" xlink:href={attribute(url)}'


def _time(name: str, moment: datetime | None) -> str:
    return _element(name, None if moment is None else to_time(moment))


def _element(name: str, value: str | None) -> str:
    return f'<uws:{name} xsi:nil="true"/>\n' if value is None else f"<uws:{name}>{text(value)}</uws:{name}>\n"
