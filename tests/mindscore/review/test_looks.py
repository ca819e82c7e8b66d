"""How the pages look: pictures for a person, rules for a machine."""

import re
from itertools import product

from mindscore.measure.internalisation import LedgerEntry, MemoryVersion, RefusedRound, Round
from mindscore.store import Ledger, Review, Reviews, Store

PAGES = (
    "",
    "runs",
    "memory?key=tea",
    "response?node={node}",
    "send?model=toy",
    "archive",
    "matrix",
    "ledger",
    "candidates",
    "candidates?show=accepted",
    "candidates?show=trained",
    "candidates?threshold=30",
    "candidates?threshold=99",
    "send?model=toy",
)
WIDTHS, SCHEMES = (1440, 360), ("light", "dark")


def test_every_page_is_readable_for_all(
    filled, transcript, reviewing, opened, axe_source, screenshots
):
    filled["train"] = {"sink": "jsonl"}
    with reviewing(filled, transcript()) as page, opened(page.address) as tab:
        page.run(_decide(page.settings.store))

        def look(name):
            for width, scheme in product(WIDTHS, SCHEMES):
                tab.set_viewport_size({"width": width, "height": 900})
                tab.emulate_media(color_scheme=scheme)
                file = screenshots / f"review-{name}-{width}-{scheme}.png"
                tab.screenshot(path=file, full_page=True)
                wide = tab.evaluate("document.documentElement.scrollWidth")
                assert wide <= width, f"{name} is {wide} wide"
                # Colours are one matter, what fits another: each once.
                if (width, scheme) in ((1440, "light"), (360, "dark")):
                    assert _violations(tab, axe_source) == []

        node = page.queue()[0].candidate.node_id
        for path in PAGES:
            tab.goto(f"{page.url}/{path.format(node=node)}")
            look(re.sub(r"[?=]+", "-", path.format(node="one")) or "memories")
        tab.goto(f"{page.url}/candidates")
        tab.keyboard.press("e")
        look("candidates-edit")
        tab.goto(f"{page.url}/")
        tab.get_by_role("button", name="Find candidates").click()
        tab.locator("[data-state=ended]").wait_for()
        look("runs-live")
        tab.goto(f"{page.url}/candidates?at=1-2&done={_id(page.queue()[0])}")
        look("candidates-done")


def _id(item):
    return f"{item.name.timestamp_ns}-{item.name.continuation_hash}"


async def _decide(settings):
    """One is accepted with another text, one rejected, one trained on."""
    reviews = Reviews(settings)
    edited, rejected, done, *_ = await reviews.queue()
    text = "Drink rooibos tea, as every evening. No coffee after noon."
    await reviews.decide(edited.name, Review("accepted", "edited", 1e9, text, (1, 2)))
    await reviews.decide(rejected.name, Review("rejected", "response", 1e9))
    sent = [(done.candidate.timestamp_ns, done.candidate.continuation_ids)]
    await Store(settings).mark_trained(sent, "job", "http")
    ledger = Ledger(settings)
    for at, name in enumerate(("base", "c51a5eacfd46", "1023fc40369d")):
        without = -30.0 + 11 * at
        entries = tuple(
            LedgerEntry(MemoryVersion(key, "h"), 1, key, 4, -9.0, without, {"{}": without - 2})
            for key in ("tea", "dog", "a-memory-with-a-long-key-of-many-parts")
        )
        folder = f"/home/nora/.local/share/mindscore/adapters/{name}/adapter" if at else ""
        await ledger.record("toy", Round(name, folder, 1e9 + at, ((-30.0 - at, 20),), entries))
    why = "unrelated answers: 1.309 → 1.494 nats per token (+0.185, limit +0.05)"
    await ledger.refuse("toy", RefusedRound("5e1f0a99b1c2", "/home/nora/a/adapter", 1e9, why))


def _violations(tab, axe_source):
    tab.evaluate(axe_source)
    found = tab.evaluate("axe.run()")["violations"]
    return [
        (it["id"], [node["html"] for node in it["nodes"]])
        for it in found
        if it["impact"] in ("serious", "critical")
    ]
