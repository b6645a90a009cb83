"""What a Python user touches: clients and `Result`.

`local.py` queries a service in this process, `remote.py` a running one over HTTP; both give a `Result` (`result.py`).
"""
