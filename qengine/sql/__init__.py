"""The language: ADQL for sqlglot, the function table, names bound to the catalogue, rendering for DuckDB."""
