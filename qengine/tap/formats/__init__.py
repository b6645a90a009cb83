"""Result formats: from Arrow batches to bytes.

`writer.py` is the protocol, `choose.py` the list of formats; `votable.py` with `binary2.py`, `delimited.py` and `columnar.py`
write, `values.py` says how each type is shown. One contract suite runs on all writers.
"""
