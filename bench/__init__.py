"""Benchmarks: synthetic catalogues of any size (`datagen`), our own statements (`queries/`), and suites that measure qengine and
bare DuckDB on the same files in the same run. `make bench` runs them; `compare` prints the ratios."""
