"""A page that a test opens, and what it does that it should not."""

from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Opened:
    """A page in the browser; ``wrong`` is what it logged, asked for, or tried."""

    page: Any
    wrong: list[str] = field(default_factory=list)

    def script(self, text, argument=None):
        return self.page.evaluate(text, argument)

    def texts(self, selector):
        return self.script(
            "(it) => Array.from(document.querySelectorAll(it), (each) => each.textContent)",
            selector,
        )

    def serious(self, axe_source):
        """What axe finds that is serious or worse."""
        self.page.evaluate(axe_source)
        found = self.page.evaluate("axe.run()")["violations"]
        return [
            f"{it['id']}: {[node['html'] for node in it['nodes']]}"
            for it in found
            if it["impact"] in ("serious", "critical")
        ]


@contextmanager
def opened(browser, file: Path, width=1440, height=900, **options):
    """Opens ``file`` in a window of its own."""
    size = {"width": width, "height": height}
    page = browser.new_page(viewport=size, reduced_motion="reduce", **options)
    it = Opened(page)
    page.on("console", lambda message: it.wrong.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: it.wrong.append(f"error: {error}"))
    page.on(
        "dialog", lambda dialog: (it.wrong.append(f"dialog: {dialog.message}"), dialog.dismiss())
    )
    page.on("request", lambda request: it.wrong.append(f"request: {request.url}"))
    address = file.as_uri()
    page.goto(address)
    it.wrong.remove(f"request: {address}")
    try:
        yield it
    finally:
        page.close()
