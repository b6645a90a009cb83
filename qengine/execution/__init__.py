"""DuckDB: the one owner of it, the runner of tasks, the merge engine."""
