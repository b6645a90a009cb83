"""Errors as TAP clients want them: a VOTable with QUERY_STATUS=ERROR.

Everything that the user can act on is HTTP 400, the one status whose text all clients show; faults of the cluster or of the
data are 503 and 500 with the same document. Who has to prove who they are gets 401, who has to wait 429 with Retry-After.
"""

from __future__ import annotations

import logging
import math

from starlette.responses import Response

from qengine.errors import Blame, BugError, CredentialsError, QEngineError, TooManyRequestsError
from qengine.tap.formats.votable import error_document

_log = logging.getLogger(__name__)

_STATUS = {Blame.USER: 400, Blame.LIMIT: 400, Blame.CLUSTER: 503, Blame.DATA: 500, Blame.BUG: 500}


def error_response(error: QEngineError) -> Response:
    """Return the response that reports `error`."""
    status, headers = _STATUS[error.blame], {}
    if isinstance(error, CredentialsError):
        status = 401
    elif isinstance(error, TooManyRequestsError):
        status, headers = 429, {"retry-after": str(math.ceil(error.details.get("retry_after_s", 1)))}
    return Response(error_document(error), status_code=status, headers=headers, media_type="application/x-votable+xml")


def as_known(error: Exception) -> QEngineError:
    """Return `error` itself, or for one that nobody foresaw a `BugError` that gives nothing away; the log has the rest."""
    if isinstance(error, QEngineError):
        return error
    _log.error("unforeseen error", exc_info=error)
    return BugError("the service failed unexpectedly", hint="its log has the details")
