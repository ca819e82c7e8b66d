"""The page of an archive: what to do with each of its memories, in one HTML file."""

from __future__ import annotations

from datetime import datetime

import mindscore
from mindscore.measure.archive_advice import ArchiveAdvice
from mindscore.pages.archive import ORDERS, SIZES, ArchiveCards, groups, ordered
from mindscore.pages.environment import asset, csp, environment

MOST_TEXT = 4_000_000
"""Characters of all memories' texts in a page; longer ones are cut where they do not fit."""

LONGEST_TEXT, SHORTEST_CUT = 20_000, 200
"""Characters of one memory that a page shows: at most, and where there are very many."""

MOST_ROWS = 100
"""Memories that are shown at a time; the same as in ``archive.js``."""


def archive_page(archive: ArchiveAdvice) -> str:
    """Return the page: it needs no other file, and asks for none.

    Raises:
        UsageError: Jinja2 is not installed.
    """
    its = ordered(archive.advice, "nats", descending=True)
    longest = max(SHORTEST_CUT, min(LONGEST_TEXT, MOST_TEXT // max(1, len(its))))
    cards = ArchiveCards(archive, longest)
    styles = [
        asset("theme.css"),
        asset("archive.css"),
        asset("report.css", "mindscore.report"),
    ]
    scripts = [asset(name, "mindscore.report") for name in ("sorting.js", "archive.js")]
    return (
        environment("mindscore.report")
        .get_template("archive_page.html")
        .render(
            policy=csp(scripts, styles),
            styles=styles,
            scripts=scripts,
            archive=archive,
            cards=cards,
            groups=groups(archive),
            shown=map(cards.card, its[:MOST_ROWS]),
            others=map(cards.card, its[MOST_ROWS:]),
            orders=ORDERS,
            sizes=SIZES,
            most_rows=MOST_ROWS,
            link=lambda key: f"#m{cards.numbers[key]}" if key in cards.numbers else "#archive",
            date=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M UTC%z"),
            version=mindscore.__version__,
        )
    )
