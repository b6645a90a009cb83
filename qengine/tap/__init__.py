"""The TAP service: protocol and formats, no query logic.

`app.py` has the routes, `parameters.py` says what a request means, `sync.py` streams an answer, `metadata.py` writes the VOSI
documents, `failure.py` the errors, `formats/` the results.
"""
