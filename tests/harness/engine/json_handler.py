"""What the small HTTP servers of the tests share: they are silent, and answer with JSON of a stated length."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler
from typing import Any


class JsonHandler(BaseHTTPRequestHandler):
    """Answers requests with JSON bytes."""

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def body(self) -> bytes:
        """Return the body of a request."""
        return self.rfile.read(int(self.headers["Content-Length"]))

    def send(self, status: int, body: bytes) -> None:
        """Send a whole reply."""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
