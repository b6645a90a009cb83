"""One module per version of the registry's schema, named by its number."""
