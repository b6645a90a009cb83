"""An OpenID Connect issuer on this machine: its configuration and keys by HTTP, and tokens that it signs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, RSAKey


class LocalIssuer:
    """Signs with `keys`, the first of them by default; `asked` are the paths that were asked for."""

    def __init__(self) -> None:
        self.url = ""
        self.keys: list[Any] = [RSAKey.generate_key(2048, {"kid": "one"}, private=True)]
        self.asked: list[str] = []
        self.is_down = False

    def turn(self) -> None:
        """Sign with another key, of another kind, from now on."""
        self.keys.insert(0, ECKey.generate_key("P-256", {"kid": f"k{len(self.keys)}"}, private=True))

    def token(self, user: str = "ann", *, key: Any = None, header: dict[str, Any] | None = None, **claims: Any) -> str:
        key = key or self.keys[0]
        now = int(time.time())
        whole = {
            "iss": self.url, "aud": "qengine", "sub": "1", "exp": now + 300, "iat": now, "preferred_username": user, **claims,
        }  # fmt: skip
        alg = {"RSA": "RS256", "EC": "ES256", "oct": "HS256"}[key.key_type]
        return jwt.encode({"alg": alg, "kid": key.kid, **(header or {})}, {k: v for k, v in whole.items() if v is not None}, key)

    def document(self, path: str) -> dict[str, Any]:
        if path == "/.well-known/openid-configuration":
            return {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        return dict(KeySet(self.keys).as_dict(private=False))


@contextmanager
def issuing() -> Iterator[LocalIssuer]:
    issuer = LocalIssuer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.asked.append(self.path)
            self.send_response(500 if issuer.is_down else 200)
            self.end_headers()
            self.wfile.write(json.dumps(issuer.document(self.path)).encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    issuer.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
