"""Archives of memories of known kinds, with noise like that of a real matrix."""

import numpy as np

from mindscore.measure.evidence import EvidenceColumns, MemoryVersion

KINDS = ["steady"] * 6 + ["rare"] * 4 + ["copy"] * 5 + ["misleading"] * 3 + ["idle"] * 22
"""The bundled conversation's kinds, and more idle ones."""

STEADY, RARE, COPY, MISLEADING = 0.1, 0.01, 0.1, 0.08
"""Share of the responses that a memory of a kind has to do with."""


def archive(conversations, seed, kinds=KINDS, hold=True, tails=4, present=0.8):
    """Columns of an archive; a version's key is its kind and number.

    What has nothing to do with a response changes it by Student's t with ``tails`` degrees of
    freedom, around a lift, on a scale of the response's own (median 0.4 nats, a tenth of them below
    0.19 and another above 0.86). A memory is in ``present`` of the conversations.
    """
    random, kinds = np.random.default_rng(seed), np.array(kinds)
    columns = {name: [] for name in ("memory", "conversation", "response", "signed", "hold")}
    for conversation in range(conversations):
        here = np.flatnonzero(random.random(len(kinds)) < present)
        kind = kinds[here]
        for _ in range(1 + random.poisson(4)):
            scale = 0.4 * np.exp(0.6 * random.standard_normal())
            lift = 0.5 * scale * random.standard_normal()
            drop = lift + scale * random.standard_t(tails, len(here))
            alone = abs(lift) + scale + scale * random.standard_t(tails, len(here))
            helps = _hits(random, kind == "steady", STEADY, 8, 0.8)
            helps += _hits(random, kind == "rare", RARE, 15, 0.4)
            helps -= _hits(random, kind == "misleading", MISLEADING, 5, 0.7)
            copies = kind == "copy"
            shared = copies * float(_hits(random, np.array([True]), COPY, 12, 0.4)[0])
            columns["memory"].append(here)
            columns["conversation"].append(np.full(len(here), conversation))
            columns["response"].append(np.full(len(here), len(columns["response"])))
            columns["signed"].append(drop + helps + shared * (copies.sum() == 1))
            columns["hold"].append(alone + helps + shared)
    made = {name: np.concatenate(parts) for name, parts in columns.items()}
    unknown = np.full(len(made["memory"]), np.nan)
    if not hold:
        made["hold"] = unknown
    held = np.bincount(made["memory"], minlength=len(kinds))
    return EvidenceColumns(
        [MemoryVersion(f"{kind}-{at}", "h", 20, int(held[at])) for at, kind in enumerate(kinds)],
        noise=unknown,
        time=made["conversation"].astype(float),
        **made,
    )


def _hits(random, able, share, nats, width):
    """Effects of about ``nats`` on a share of the responses, of a spread of ``width``."""
    sizes = nats * np.exp(width * random.standard_normal(len(able)))
    return np.where(able & (random.random(len(able)) < share), sizes, 0.0)


def columns(versions, rows):
    """Columns of few cells: (memory, conversation, response, signed[, hold[, noise[, time]]])."""
    rows = [(*row, *[np.nan] * (7 - len(row))) for row in rows]
    parts = [np.array(part) for part in zip(*rows, strict=True)] if rows else [np.zeros(0)] * 7
    numbers = [part.astype(int) for part in parts[:3]]
    return EvidenceColumns(versions, *numbers, *[part.astype(float) for part in parts[3:]])
