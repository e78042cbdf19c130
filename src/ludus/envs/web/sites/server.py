"""The sites over HTTP, for real browsers. Each session has a database of its own, found by a cookie.

    python -m ludus.envs.web.sites.server --port 8080 --seed 0

serves them to whoever comes: every visitor gets a session, and /reset begins it anew.
"""

from __future__ import annotations

import argparse
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit

from ludus.envs.web.sites import SITES, fresh, visit
from ludus.envs.web.sites.web import Answer, Ask, heading, page
from ludus.types import Key

COOKIE = "session"
LARGEST = 65_536  # bytes of a form
MOST = 10_000  # sessions; the one that was used longest ago is forgotten


@dataclass
class Session:
    """A database and the lock that its requests take turns by."""

    data: bytes
    lock: threading.Lock = field(default_factory=threading.Lock)


class Server:
    """
    visitors  the database that somebody without a session begins with; None: they are refused
    """

    def __init__(
        self, port: int = 0, host: str = "127.0.0.1", visitors: bytes | None = None
    ) -> None:
        self.visitors = visitors
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()
        self._http = _Http((host, port), _Handler)
        self._http.sites = self
        threading.Thread(target=self._http.serve_forever, args=(0.1,), daemon=True).start()

    @property
    def url(self) -> str:
        host, port = self._http.server_address[:2]
        return f"http://{host}:{port}"

    def begin(self, data: bytes) -> str:
        """The name of a new session with this database."""
        name = secrets.token_urlsafe(16)
        with self._lock:
            self._sessions[name] = Session(data)
            while len(self._sessions) > MOST:
                self._sessions.popitem(last=False)
        return name

    def data(self, name: str) -> bytes:
        """Its database as it is now."""
        return self._sessions[name].data

    def end(self, name: str) -> None:
        with self._lock:
            self._sessions.pop(name, None)

    def session(self, name: str | None) -> Session | None:
        with self._lock:
            found = self._sessions.get(name or "")
            if found is not None and name is not None:
                self._sessions.move_to_end(name)
            return found

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    sites: Server


class _Handler(BaseHTTPRequestHandler):
    server: _Http
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        self._answered({})

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > LARGEST:
            self.close_connection = True
            return self._told(413, f"a form has at most {LARGEST} bytes, and says how many")
        body = self.rfile.read(int(length)).decode(errors="replace")
        self._answered(dict(parse_qsl(body, keep_blank_values=True)))

    def _answered(self, form: dict[str, str]) -> None:
        name, sites = self._cookie(), self.server.sites
        session = sites.session(name)
        new = ""
        parts = urlsplit(self.path)
        if session is None or (parts.path == "/reset" and sites.visitors is not None):
            if sites.visitors is None:
                return self._told(403, "no such session")
            new = sites.begin(sites.visitors)
            session = sites.session(new)
            assert session is not None
            if parts.path == "/reset":
                return self._send(Answer(to="/"), new)
        post = self.command == "POST"
        fields = form if post else dict(parse_qsl(parts.query, keep_blank_values=True))
        ask = Ask("POST" if post else "GET", unquote(parts.path), fields)
        with session.lock:
            answer, session.data = visit(session.data, ask)
        self._send(answer, new)

    def _cookie(self) -> str | None:
        try:
            cookie = SimpleCookie(self.headers.get("Cookie", ""))
        except CookieError:
            return None
        return cookie[COOKIE].value if COOKIE in cookie else None

    def _told(self, status: int, text: str) -> None:
        self._send(Answer(page("error", "", heading(text)), status))

    def _send(self, answer: Answer, session: str = "") -> None:
        body = answer.html.encode()
        self.send_response(303 if answer.to else answer.status)
        if answer.to:
            self.send_header("Location", answer.to)
        if session:
            self.send_header("Set-Cookie", f"{COOKIE}={session}; Path=/; HttpOnly; SameSite=Lax")
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")  # going back shows what is there now
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve the sites on this machine.")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--seed", type=int, default=0, help="of what is on the pages")
    parser.add_argument(
        "--size", type=int, default=12, help="products, threads and so on of a site"
    )
    given = parser.parse_args()
    data = fresh(tuple(SITES), given.size, Key(given.seed, ("sites",)).generator())
    server = Server(given.port, visitors=data)
    print(f"the sites are at {server.url}; Ctrl-C ends")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        server.close()


if __name__ == "__main__":
    main()
