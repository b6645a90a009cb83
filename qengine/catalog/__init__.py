"""What is stored: types, tables, schemas, manifests, and the registry that says what is published."""
