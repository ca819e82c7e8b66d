"""What a store has of an archive, to compare two of them."""

import asyncio
from dataclasses import asdict

from mindscore.config.settings import parse_settings
from mindscore.store import Store, rows_of


def kept(tables):
    """All that a store has of an archive, without the times of measuring."""
    store = Store(parse_settings(tables).store)

    async def read():
        evidence = [row async for batch in store.evidence() for row in rows_of(batch)]
        texts = sorted(await store.memory_texts(), key=lambda it: (it.key, it.text_hash))
        facts = [*evidence, *texts, *await store.conversations()]
        passes = await store.passes()
        for it in passes:
            rows = await store.rows(it.model, it.conversation)
            facts += [rows[key] for key in sorted(rows)]
            facts += (await store.notes(it.model, it.conversation)).values()
        scores = await store.known_scores()
        return [*facts, *passes, *sorted(scores, key=lambda it: (it.conversation, it.key))]

    measured = ("scored_at", "first_seen", "last_seen", "seen_at", "done_at", "seconds")
    rows = [asdict(it) for it in asyncio.run(read())]
    return [{name: it for name, it in row.items() if name not in measured} for row in rows]
