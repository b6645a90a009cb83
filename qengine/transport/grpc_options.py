"""What both ends of a gRPC connection agree on: method names, options, certificates.

A network that swallows packets is noticed by keepalive after about 1.4 s; without it only at the end of the call. Retries are off,
because they are the scheduler's. Messages may be large: batches are cut to about 4 MB, but one row can be larger.
"""

from __future__ import annotations

import os

import grpc

from qengine.transport.tls import TlsFiles

# A worker that goes away is an event of ours, reported as one; gRPC would also write a line to standard error.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

RUN = "/qengine.v1.Worker/Run"
FETCH = "/qengine.v1.Worker/Fetch"
RELEASE = "/qengine.v1.Worker/Release"
PUT = "/qengine.v1.Worker/Put"
PULL = "/qengine.v1.Worker/Pull"
CANCEL = "/qengine.v1.Worker/Cancel"
STATUS = "/qengine.v1.Worker/Status"

_UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))

CLIENT_OPTIONS: tuple[tuple[str, int], ...] = (
    *_UNLIMITED,
    ("grpc.keepalive_time_ms", 2000),
    ("grpc.keepalive_timeout_ms", 1000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # Despite its name this is also how long one attempt to connect may take, TLS handshake included.
    ("grpc.min_reconnect_backoff_ms", 3000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Channels of one process to one address would share a connection, and a broken one would break all.
    ("grpc.use_local_subchannel_pool", 1),
)

SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    *_UNLIMITED,
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1000),
    ("grpc.http2.min_ping_interval_without_data_ms", 1000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.keepalive_time_ms", 2000),
    ("grpc.keepalive_timeout_ms", 1000),
    # Two workers on one port would share the calls at random: the second must fail to start.
    ("grpc.so_reuseport", 0),
)


def client_credentials(tls: TlsFiles) -> grpc.ChannelCredentials:
    """Return what a coordinator shows to workers and expects of them."""
    return grpc.ssl_channel_credentials(tls.authority.read_bytes(), tls.key.read_bytes(), tls.certificate.read_bytes())


def server_credentials(tls: TlsFiles) -> grpc.ServerCredentials:
    """Return what a worker shows to coordinators and expects of them."""
    pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
    return grpc.ssl_server_credentials([pair], tls.authority.read_bytes(), require_client_auth=True)
