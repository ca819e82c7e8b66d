"""The report: one HTML file with the findings of a command."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryFile
from typing import Any

import mindscore
from mindhooks import MindCommand, ResponseDivergence
from mindscore._util.errors import UsageError
from mindscore._util.files import write_whole
from mindscore._util.text import moment_text
from mindscore.config.settings import ServerSettings, Settings, parse_settings
from mindscore.flows.compare import COMMAND
from mindscore.measure.divergence import (
    UNMEASURED_NOISE,
    column_spread,
    noise_limit,
)
from mindscore.measure.interactions import told_once
from mindscore.measure.memories import memory_texts
from mindscore.measure.screening.receipt import Estimate
from mindscore.pages.environment import asset, csp, embed, environment, turns
from mindscore.report.comparison_page import comparison_page
from mindscore.report.ranking import STEP, TOKENS_PER_BYTE, Standing, pack, standings
from mindscore.session.result import Result
from mindscore.session.session import Session
from mindscore.session.words import as_cuts, spoken_words

PATIENCE_S = 60.0
"""Seconds that a model server may take to give the words of the responses."""


class HtmlReport:
    """The page to write to ``file`` after a run with the settings in ``tables``.

    ``patience_s``: seconds that the words of the responses may take.
    """

    def __init__(
        self, file: Path, tables: Mapping[str, Any], patience_s: float = PATIENCE_S
    ) -> None:
        self._file = file
        self._settings = parse_settings(tables)
        self._patience_s = patience_s
        self._without_words: str | None = None

    def check(self, others: Mapping[str, Path | None]) -> None:
        """Refuse a file that cannot be written or must not be replaced, before anything is scored.

        ``others``: the files that the run reads, by what they are.

        Raises:
            UsageError: says why.
        """
        from mindscore.store.database import file_of

        environment("mindscore.report")
        file, folder = self._file, self._file.parent
        if not folder.is_dir():
            raise UsageError(f"--html {file}: there is no folder {folder}")
        if file.exists():
            if not file.is_file():
                raise UsageError(f"--html {file}: it is no regular file")
            store = file_of(self._settings.store.url)
            for what, other in {**others, "store": store}.items():
                if other is not None and other.exists() and file.samefile(other):
                    raise UsageError(f"--html {file}: that is the {what}")
        try:
            TemporaryFile(dir=folder).close()
        except OSError as error:
            raise self._not_written(error) from None

    async def with_words(self, session: Session, result: Result) -> Result:
        """Return ``result`` with the words of the responses that have values of single tokens."""
        told = {
            cell.node_id
            for score in result.scores.values()
            for cell in score.divergences
            if cell.tokens is not None
        }
        if not told:
            return result
        with session.activity("report: words of the responses"):
            context, scorer = await session.context(), await session.registry.scorer()
            try:
                async with asyncio.timeout(self._patience_s):
                    words = await spoken_words(context, told, scorer)
            except TimeoutError:
                self._without_words = (
                    f"the server did not say within {self._patience_s:g} s what their tokens are"
                )
                return result
            return replace(result, words=words)

    def write(self, result: Result) -> None:
        """Write the page, whole or not at all, readable by its owner only.

        Raises:
            UsageError: it cannot be written; an earlier file is left as it was.
        """
        if result.command == COMMAND:
            page = comparison_page(result)
        else:
            page = render(result, self._settings, self._without_words)
        try:
            # JSON may hold half a surrogate pair, which UTF-8 cannot.
            write_whole(self._file, page.encode(errors="replace"))
        except OSError as error:
            raise self._not_written(error) from None

    def _not_written(self, error: OSError) -> UsageError:
        return UsageError(f"--html {self._file}: cannot be written: {error.strerror or error}")


MOST_BYTES = 9_000_000
"""Bytes of the data in a page; values of tokens are left out where they do not fit."""

LONGEST_TEXT = 20_000
"""Characters of one memory or response that a page shows."""

MOST_OPEN = 10
"""Candidates that a page shows open; the rest can be unfolded."""

Cells = list[dict[str, ResponseDivergence]]
"""For each memory, its cells by node id."""

Column = tuple[int, str]
"""A response: its index in the conversation and its node id."""


def render(result: Result, settings: Settings, without_words: str | None = None) -> str:
    """Return the page; ``without_words`` says why the words of responses are not known.

    Raises:
        UsageError: Jinja2 is not installed.
    """
    least = settings.memory.min_divergence
    texts = {key: shortened_text(it) for key, it in memory_texts(result.transcript).items()}
    ranked = standings(result, texts, least)
    rows = [_by_response(result, it.key, "divergences") for it in ranked]
    columns = _columns(rows, result.estimates)
    numbers = {id_: index for index, id_ in columns}
    is_full = result.command == MindCommand.SCORE_FULL
    styles = [asset("theme.css"), asset("matrix.css"), asset("report.css", "mindscore.report")]
    data = _data(result, ranked, rows, columns, least)
    scripts = [
        asset("matrix.js"),
        asset("sorting.js", "mindscore.report"),
        asset("report.js", "mindscore.report"),
    ]
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
            pairs=told_once(result.redundant, result.interactions, numbers),
            finetune=settings.finetune,
            noise_limit=noise_limit,
            unmeasured=UNMEASURED_NOISE,
            measured=_measured(result),
            verdicts=[it.verdict for it in result.reviewed] or [""] * len(result.candidates),
            most_open=MOST_OPEN,
            least=least,
            data={**data, "without_words": without_words},
            turns=turns(result.transcript, data) if is_full else [],
        )
    )


def facts(result: Result, settings: Settings) -> list[tuple[str, str]]:
    """Return names and values about the run, in the order of the page."""
    found = [
        ("Command", result.command),
        ("Transcript", result.transcript.file.name),
        ("Model", result.model),
    ]
    if result.measured is None:
        found.append(("Server", _server(settings.server)))
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
        *([("Place", result.placebo.remark)] if result.placebo else []),
        ("Date", datetime.now().astimezone().strftime("%Y-%m-%d %H:%M UTC%z")),
        ("mindscore", mindscore.__version__),
    ]
    return found


def _measured(result: Result) -> str:
    """Return when what is read from the store was measured; empty: it was measured now."""
    times = dict.fromkeys(moment_text(it) for it in result.measured or ())
    return " to ".join(times)


def _server(server: ServerSettings) -> str:
    if not server.base_url:
        return server.scorer
    # Scorers of third parties may take addresses with a user, password or query.
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


def shortened_text(text: str) -> str:
    """Return ``text``, cut to ``LONGEST_TEXT`` characters."""
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"


def _by_response(result: Result, key: str, which: str) -> dict[str, ResponseDivergence]:
    score = result.scores.get(key)
    return {cell.node_id: cell for cell in getattr(score, which, None) or ()}


def _columns(rows: Cells, estimates: Iterable[Estimate]) -> list[Column]:
    """Return the responses with any cell, in the conversation's order."""
    found = {(cell.entry_idx, node_id) for row in rows for node_id, cell in row.items()}
    return sorted(found | {(it.entry_idx, it.node_id) for it in estimates})


def _data(
    result: Result, ranked: list[Standing], rows: Cells, columns: list[Column], least: float
) -> dict[str, Any]:
    """Return the data for the page's scripts."""
    responses, spreads = [_response(result, column) for column in columns], result.spreads
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
        "spread": [round(spreads.get(node_id, 0.0), 4) for _, node_id in columns],
        "hold": _values(holds, columns, "signed") if any(holds) else None,
        "hold_noise": _noise(holds, columns) if any(holds) else None,
        "hold_spread": _spreads(holds, columns),
        "estimates": _estimates(result, ranked, columns),
        "estimates_error": result.estimates_error,
        "place": _place(result, columns),
        "unmeasured": UNMEASURED_NOISE,
        "least": least,
        "step": STEP,
    }
    room = MOST_BYTES - len(embed("data", data).encode("utf-8", "replace"))
    tokens = pack(by_row, lengths, least, spreads, int(max(0, room) * TOKENS_PER_BYTE))
    return {**data, "tokens": asdict(tokens) if tokens else None}


def _estimates(
    result: Result, ranked: list[Standing], columns: list[Column]
) -> list[list[float | None]] | None:
    """Return what a screen has estimated, and nothing measured, by row and column."""
    if not result.estimates:
        return None
    known = {(it.key, it.node_id): round(it.nats, 4) for it in result.estimates}
    return [[known.get((it.key, node_id)) for _, node_id in columns] for it in ranked]


def _place(result: Result, columns: list[Column]) -> list[float] | None:
    """Return what an unrelated text in a memory's place does to each response, if that is known."""
    if result.placebo is None:
        return None
    return [round(result.placebo.spread.get(node_id, 0.0), 4) for _, node_id in columns]


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


def _spreads(rows: Cells, columns: list[Column]) -> list[float]:
    values = zip(*_values(rows, columns, "signed"), strict=True)
    return [round(column_spread(column), 4) for column in values]


def _noise(rows: Cells, columns: list[Column]) -> list[list[float | None]] | None:
    noise = _values(rows, columns, "noise")
    return noise if any(it is not None for row in noise for it in row) else None
