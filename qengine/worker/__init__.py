"""A worker: gRPC front and slot processes."""
