"""The report's page, made of what a command found."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from statistics import median
from typing import Any

from mindhooks import MindCommand, ResponseDivergence
from mindscore.config.settings import ServerSettings, Settings
from mindscore.measure.redundancy import redundant_pairs
from mindscore.pages.environment import asset, csp, embed, environment
from mindscore.report.ranking import STEP, TOKENS_PER_BYTE, Standing, pack, standings
from mindscore.session.result import Result
from mindscore.session.words import as_cuts


def facts(result: Result, settings: Settings) -> list[tuple[str, str]]:
    """Names and values, in the order in which they are shown."""
    found = [
        ("Command", result.command),
        ("Transcript", result.transcript.file.name),
        ("Model", result.model),
        ("Server", _server(settings.server)),
    ]
    if stats := result.stats:
        computed = stats.computed_tokens
        found += [
            ("Calls", f"{stats.calls:,}"),
            ("Tokens sent", f"{stats.prompt_tokens:,}"),
            ("Tokens computed", "the server does not say" if computed is None else f"{computed:,}"),
            ("Time", f"{stats.seconds:,.1f} s"),
        ]
    found += [
        ("Noise", _noise_fact(result)),
        ("Date", datetime.now().astimezone().strftime("%Y-%m-%d %H:%M UTC%z")),
        ("mindscore", version("mindscore")),
    ]
    return found


def _server(server: ServerSettings) -> str:
    if not server.base_url:
        return server.scorer
    # Ours take none with user, password or query; another's may.
    is_plain = not set("@?#") & set(server.base_url)
    return f"{server.scorer}, {server.base_url if is_plain else 'at an address with a secret'}"


def _noise_fact(result: Result) -> str:
    spreads = {
        cell.node_id: cell.noise
        for score in result.scores.values()
        for cell in score.divergences
        if cell.noise is not None and cell.signed != 0
    }
    known = [*spreads.values(), *(it.noise for it in result.candidates if it.noise is not None)]
    if not known:
        return "not measured"
    return f"{median(known):.2f} nats (median of {len(known)} responses; largest {max(known):.2f})"


MOST_BYTES = 9_000_000
"""Of the data in a page; what single tokens tell is left out where the rest takes the room."""

LONGEST_TEXT = 20_000
"""Characters of one memory or response that a page shows."""

Cells = list[dict[str, ResponseDivergence]]
"""For each memory, what it did, by node id."""

Column = tuple[int, str]
"""A response: its index in the conversation and its node id."""


def render(result: Result, settings: Settings, without_words: str | None = None) -> str:
    """The whole page; ``without_words`` says why the words of responses are not known.

    Raises:
        UsageError: Jinja2 is not installed.
    """
    least = settings.memory.min_divergence
    ranked = standings(result, memory_texts(result), least)
    rows = [_by_response(result, it.key, "divergences") for it in ranked]
    columns = _columns(rows)
    is_full = result.command == MindCommand.SCORE_FULL
    styles = [asset("theme.css"), asset("matrix.css"), asset("report.css", "mindscore.report")]
    scripts = [asset("matrix.js"), asset("report.js", "mindscore.report")]
    return (
        environment("mindscore.report")
        .get_template("report.html")
        .render(
            policy=csp(scripts, styles),
            styles=styles,
            scripts=scripts,
            result=result,
            is_finetune=result.command == MindCommand.SCORE_FINETUNE,
            is_full=is_full,
            facts=facts(result, settings),
            standings=ranked,
            pairs=_pairs(result, columns) if is_full else [],
            finetune=settings.finetune,
            least=least,
            data={
                **_data(result, ranked, rows, columns, least),
                "without_words": without_words,
            },
        )
    )


def memory_texts(result: Result) -> dict[str, str]:
    """What each memory says, by key; where it is there more than once, each text once."""
    transcript, texts = result.transcript, dict[str, dict[str, None]]()
    for message in (*transcript.system, *transcript.identity, *transcript.conversation):
        if message.memory_key is not None:
            texts.setdefault(message.memory_key, {})[message.text] = None
        for part in message.parts:
            if part.memory_key is not None:
                texts.setdefault(part.memory_key, {})[part.text.strip()] = None
    return {key: shortened_text("\n".join(each)) for key, each in texts.items()}


def shortened_text(text: str) -> str:
    """``text``, or its beginning."""
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"


def _by_response(result: Result, key: str, which: str) -> dict[str, ResponseDivergence]:
    score = result.scores.get(key)
    return {cell.node_id: cell for cell in getattr(score, which, None) or ()}


def _columns(rows: Cells) -> list[Column]:
    """The responses of which anything was measured, in the conversation's order."""
    found = {(cell.entry_idx, node_id) for row in rows for node_id, cell in row.items()}
    return sorted(found)


def _data(
    result: Result, ranked: list[Standing], rows: Cells, columns: list[Column], least: float
) -> dict[str, Any]:
    """What the page's scripts work with."""
    responses = [_response(result, column) for column in columns]
    lengths = [response["cuts"] and sum(response["cuts"][1::2]) for response in responses]
    by_row = [[(at, row[id_]) for at, (_, id_) in enumerate(columns) if id_ in row] for row in rows]
    holds = [_by_response(result, it.key, "hold") for it in ranked]
    told = [any(cell.tokens is not None for cell in row.values()) for row in rows]
    data = {
        "memories": [
            asdict(it) | {"effect": it.effect, "told": by_token}
            for it, by_token in zip(ranked, told, strict=True)
        ],
        "responses": responses,
        "signed": _values(rows, columns, "signed"),
        "noise": _noise(rows, columns),
        "hold": _values(holds, columns, "signed") if any(holds) else None,
        "hold_noise": _noise(holds, columns) if any(holds) else None,
        "least": least,
        "step": STEP,
    }
    room = MOST_BYTES - len(embed("data", data).encode("utf-8", "replace"))
    tokens = pack(by_row, lengths, least, int(max(0, room) * TOKENS_PER_BYTE))
    return {**data, "tokens": asdict(tokens) if tokens else None}


def _response(result: Result, column: Column) -> dict[str, Any]:
    index, node_id = column
    conversation = result.transcript.conversation
    # Another flow's index may be anything.
    text = conversation[index].text if 0 <= index < len(conversation) else node_id
    words = result.words.get(node_id)
    if words is not None:
        text = "".join(word.text for word in words)
    cuts = as_cuts(words) if words is not None and len(text) <= LONGEST_TEXT else None
    return {"entry_idx": index, "node_id": node_id, "text": shortened_text(text), "cuts": cuts}


def _values(rows: Cells, columns: list[Column], which: str) -> list[list[float | None]]:
    def value(cell: ResponseDivergence | None) -> float | None:
        found: float | None = getattr(cell, which, None)
        return None if found is None else round(found, 4)

    return [[value(row.get(id_)) for _, id_ in columns] for row in rows]


def _noise(rows: Cells, columns: list[Column]) -> list[list[float | None]] | None:
    noise = _values(rows, columns, "noise")
    return noise if any(it is not None for row in noise for it in row) else None


def _pairs(result: Result, columns: list[Column]) -> list[dict[str, Any]]:
    numbers = {id_: index for index, id_ in columns}
    return [
        {"keys": pair.keys, "on": [numbers[id_] for id_ in pair.node_ids if id_ in numbers]}
        for pair in redundant_pairs(result.scores.values())
    ]
