"""An S3 server (moto) in this process, and what leads to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import boto3
from moto.server import ThreadedMotoServer

KEY, SECRET = "hidden-name-of-a-key", "hidden-secret"  # the test server takes any words


@contextmanager
def bucket_server(*buckets: str) -> Iterator[dict[str, str]]:
    """Serve empty buckets and yield the environment that leads to them."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        client = boto3.client("s3", endpoint_url=url, aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name="us-east-1")
        for name in buckets:
            client.create_bucket(Bucket=name)
        yield {
            "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": url,
            "AWS_ALLOW_HTTP": "true",
        }  # fmt: skip
    finally:
        server.stop()
