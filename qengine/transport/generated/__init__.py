"""Made from proto/qengine/v1 by `make proto`; do not edit."""
