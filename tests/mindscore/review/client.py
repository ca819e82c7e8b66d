"""A browser's part by plain HTTP, header by header."""

import http.client
import re
from dataclasses import dataclass, field
from urllib.parse import urlencode

from mindscore.review.queue import id_of

from .conftest import PATIENCE_S


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict
    text: str


@dataclass
class Client:
    """Asks as a browser does that has been let in, but for what a test says."""

    page: object
    cookie: str = ""
    seen: list = field(default_factory=list)

    def let_in(self):
        """The same, once it has the cookie."""
        answer = self.ask("GET", "/?" + self.page.address.partition("?")[2], Cookie=None)
        assert answer.status == 303
        self.cookie = answer.headers["Set-Cookie"]
        return self

    def ask(self, method, path, body=None, **headers):
        """One request; a header that is ``None`` is not sent, ``_`` in a name is ``-``."""
        given = {
            "Host": f"127.0.0.1:{self.page.port}",
            "Cookie": self.cookie.partition(";")[0],
            "Origin": self.page.url if method != "GET" else None,
            "Content-Type": "application/x-www-form-urlencoded" if body is not None else None,
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        connection = http.client.HTTPConnection("127.0.0.1", self.page.port, timeout=PATIENCE_S)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in given.items():
                if value is not None:
                    connection.putheader(name, value)
            raw = urlencode(body).encode() if isinstance(body, dict) else body
            if raw is not None:
                connection.putheader("Content-Length", str(len(raw)))
            connection.endheaders(raw)
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.headers), answer.read().decode())
        finally:
            connection.close()

    def decision(self, **changes):
        """A form that accepts the first candidate."""
        id_ = id_of(self.page.queue()[0].name)
        return {"model": "toy", "id": id_, "choice": "response", **changes}

    def field(self, name, path="/candidates"):
        """What a hidden field of a page says."""
        found = re.search(rf'name="{name}" value="([^"]*)"', self.ask("GET", path).text)
        return found and found[1]
