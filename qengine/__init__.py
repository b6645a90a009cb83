"""qengine: a distributed SQL engine for astronomical catalogues."""
