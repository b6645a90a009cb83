"""Channels between coordinator and worker: protocol, in process, gRPC."""
