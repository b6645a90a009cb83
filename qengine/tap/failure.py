"""Errors as TAP clients want them: a VOTable with QUERY_STATUS=ERROR.

Everything that the user can act on is HTTP 400, the one status whose text all clients show; faults of the cluster or of the
data are 503 and 500 with the same document. Who has to prove who they are gets 401, who has to wait 429 with Retry-After, who
sends too much 413, and who asks for what takes too long 408: pyvo, astroquery and STILTS show the text of that, too.
"""

from __future__ import annotations

import logging
import math
import re

from starlette.responses import Response

from qengine.errors import (
    Blame,
    BugError,
    CredentialsError,
    QEngineError,
    QueryTimeoutError,
    RequestTooLargeError,
    TooManyRequestsError,
)
from qengine.tap.formats.votable import error_document

_log = logging.getLogger(__name__)

_PLACE = re.compile(r"(?:\b\w+://[^\s,;]+|(?<![\w.])/[\w.@+~-]+(?:/[\w.@+~=%-]*)+)")
"""Addresses, and absolute paths of two names and more."""

_HIDDEN = "(in the store)"

_STATUS = {Blame.USER: 400, Blame.LIMIT: 400, Blame.CLUSTER: 503, Blame.DATA: 500, Blame.BUG: 500}


def error_response(error: QEngineError, *, status: int = 0) -> Response:
    """Return the response that reports `error`, with the status that belongs to it unless another one is given."""
    headers = {}
    if status:
        pass
    elif isinstance(error, CredentialsError):
        status = 401
    elif isinstance(error, RequestTooLargeError):
        status = 413
    elif isinstance(error, QueryTimeoutError):
        status = 408
    elif isinstance(error, TooManyRequestsError):
        status, headers = 429, {"retry-after": str(math.ceil(error.details.get("retry_after_s", 1)))}
    else:
        status = _STATUS[error.blame]
    return Response(error_document(error), status_code=status, headers=headers, media_type="application/x-votable+xml")


def as_known(error: Exception) -> QEngineError:
    """Return `error` itself, or for one that nobody foresaw a `BugError` that gives nothing away; the log has the rest.

    Where the service has its files is nobody's business: faults of the cluster and of the data are told without.
    """
    if isinstance(error, QEngineError):
        if error.blame not in (Blame.USER, Blame.LIMIT) and (_PLACE.search(error.message) or _PLACE.search(error.hint)):
            _log.error("%s", error)
            hidden = _PLACE.sub(_HIDDEN, error.message), _PLACE.sub(_HIDDEN, error.hint)
            return type(error)(hidden[0], hint=hidden[1], span=error.span, details=error.details)
        return error
    _log.error("unforeseen error", exc_info=error)
    return BugError("the service failed unexpectedly", hint="its log has the details")
