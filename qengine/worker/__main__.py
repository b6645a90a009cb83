"""`python -m qengine.worker SETTINGS`: a worker from settings in JSON, as `worker.supervise` starts it."""

from __future__ import annotations

import sys

from qengine.errors import QEngineError
from qengine.worker.server import main
from qengine.worker.settings import WorkerSettings

if __name__ == "__main__":
    try:
        main(WorkerSettings.from_json(sys.argv[1]))
    except QEngineError as error:
        sys.exit(f"qengine worker: {error}")
