"""The HTTP server of the view: loopback only, read only, and no path of a request is ever opened.

A request names a run by a key that must be one of those in the folder. A page of another origin
cannot read an answer: the Host header must name this machine (a rebound DNS name does not), and no
answer allows another origin. A report comes from whoever made the run: it is served in a sandbox
without an origin and without network.
"""

import secrets
from collections.abc import Callable
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from fedsim.core.errors import ConfigError, FedsimError, one_line
from fedsim.run.run_folder import REPORT
from fedsim.view.pages import Page, index, live
from fedsim.view.shelf import Shelf

ADDRESS = "127.0.0.1"
NAMES = (ADDRESS, "localhost")
PATIENCE = 10.0  # seconds for a request to arrive
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
INERT = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
REPORTS = (
    f"{INERT}; script-src 'unsafe-inline'; font-src data:; sandbox allow-scripts allow-downloads"
)


class Server(ThreadingHTTPServer):
    """The view of one folder.

    Args:
        folder: A folder of runs, or a run.
        port: On loopback; 0 for a free one.

    Raises:
        ConfigError: The port is taken.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.shelf = Shelf(folder)
        self.nonce = secrets.token_urlsafe(16)
        try:
            super().__init__((ADDRESS, port), Handler)
        except OSError as error:
            raise ConfigError(f"--port: must be free, got {port} ({error.strerror})") from None

    @property
    def url(self) -> str:
        """Where the index is."""
        return f"http://{ADDRESS}:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a browser that goes away is no error of the view."""


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]
    timeout = PATIENCE
    server_version, sys_version = "fedsim", ""

    def do_GET(self) -> None:
        """Answer with a page, a part of one, or a report."""
        if not self._is_for_us():
            self._send(HTTPStatus.MISDIRECTED_REQUEST, b"This server answers to 127.0.0.1 only.")
            return
        try:
            self._route(urlsplit(self.path))
        except KeyError:
            self._send(HTTPStatus.NOT_FOUND, b"There is no such page.")
        except FedsimError as error:
            self._send(HTTPStatus.NOT_FOUND, escape(str(error)).encode("utf-8", "replace"))
        except ConnectionError:
            raise
        except Exception as error:  # whoever made a run decides what showing it raises
            text = escape(one_line(error)).encode("utf-8", "replace")
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, text)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of requests."""

    def _route(self, url: Any) -> None:
        kind, _, key = unquote(url.path, errors="surrogateescape").lstrip("/").partition("/")
        shelf = self.server.shelf
        pages: dict[str, Callable[[], Page]] = {
            "": lambda: index(shelf),
            "live": lambda: live(shelf, key),
            "rows": lambda: live(shelf, key) if key else index(shelf),
        }
        if kind == "group":
            self._report(shelf.groups()[key])
        elif kind == "report" or (kind == "run" and self._is_finished(key)):
            self._report(shelf.paths()[key] / REPORT)
        elif kind == "rows":
            self._part(pages[kind](), parse_qs(url.query).get("v"))
        else:
            page = pages["live" if kind == "run" else kind]()
            script = f"{INERT}; script-src 'nonce-{self.server.nonce}'; connect-src 'self'"
            self._send(HTTPStatus.OK, page.html(self.server.nonce), script)

    def _is_finished(self, key: str) -> bool:
        """Return whether a run's report is its page: what runs is shown from its tables."""
        path = self.server.shelf.paths()[key]
        each = self.server.shelf.glance(key, path)
        return each.state in ("finished", "recorded") and (path / REPORT).is_file()

    def _part(self, page: Page, version: list[str] | None) -> None:
        """Send what changed; nothing if it did not."""
        headers = {"X-Version": page.version, "X-Wait": str(page.wait)}
        if version == [page.version]:
            self._send(HTTPStatus.NO_CONTENT, b"", **headers)
        else:
            self._send(HTTPStatus.OK, page.rows.encode("utf-8", "replace"), **headers)

    def _report(self, path: Path) -> None:
        self._send(HTTPStatus.OK, self.server.shelf.read(path), REPORTS)

    def _is_for_us(self) -> bool:
        """Return whether the Host header names this machine, and not a name that points to it."""
        port = self.server.server_port
        names = {f"{name}:{port}" for name in NAMES} | (set(NAMES) if port == 80 else set())
        return self.headers.get_all("Host") in [[name] for name in names]

    def _send(self, status: HTTPStatus, body: bytes, policy: str = INERT, **headers: str) -> None:
        self.send_response(status)
        length = {} if status == HTTPStatus.NO_CONTENT else {"Content-Length": str(len(body))}
        kind = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": policy}
        for name, value in {**HEADERS, **kind, **headers, **length}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
