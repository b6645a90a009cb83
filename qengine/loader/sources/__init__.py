"""Inputs of the loader, each a `Source`."""
