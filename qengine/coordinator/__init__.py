"""The service that takes a statement through the nine stations: schedule, dispatch, merge."""
