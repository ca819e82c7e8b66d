"""``mindscore compare``: two models on the responses of one or many conversations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

from mindhooks import MemoryStats, ScorerError
from mindscore._util.aio import share_one_arena
from mindscore._util.errors import TranscriptError, UsageError
from mindscore._util.text import count_of
from mindscore.archive.sources import Sources
from mindscore.archive.survey import ArchiveReader, Survey, chosen_transcripts
from mindscore.cli.compare_options import CompareOptions
from mindscore.cli.interruption import DONE, FAILED, run_until_interrupted
from mindscore.config.file import Configuration, merge
from mindscore.conversation.conversation import Transcript
from mindscore.display.documents import document
from mindscore.display.screen import Screen, new_console, own_output, write_json
from mindscore.display.tables import show_result
from mindscore.flows.compare import COMMAND, NAME, OtherModel, opened_model
from mindscore.measure.comparison import Comparison
from mindscore.measure.retry import Retry
from mindscore.report.page import HtmlReport
from mindscore.session.result import Result
from mindscore.session.session import Session

NOT_NAMED = (
    "--with names the other model: a table [server.NAME] of the configuration, the folder of an "
    f"adapter (./…), or a model; so does plugins.settings.{NAME}.with"
)
NO_RESPONSE = "no conversation with a response was found"


def run_compare(options: CompareOptions) -> int:
    """Print the comparison, write the page that was asked for, and return the exit status."""
    share_one_arena()
    options.check()
    configuration = options.load()
    tables = _tables(options, configuration)
    report = _report(options, configuration, tables)
    screen = Screen("loading the models …")
    with screen, own_output():
        found = _Found(options)
        pass_ = _Pass(tables, found, screen)
        result = run_until_interrupted(pass_.run, pass_.so_far)
    result = replace(result, remarks=(*result.remarks, *found.remarks))
    if options.json:
        write_json(document(result))
    else:
        show_result(new_console(), result)
    for line in (*found.failed, *pass_.errors):
        screen.fail(line)
    if report is not None:
        report.write(result)
    return FAILED if found.failed or pass_.errors else DONE


def _tables(options: CompareOptions, configuration: Configuration) -> dict[str, Any]:
    """Return the configuration with the options.

    Raises:
        UsageError: the other model is not named.
    """
    given = {
        "with": options.other,
        "say": options.say or None,
        "memories": False if options.responses_only else None,
    }
    own = {name: value for name, value in given.items() if value is not None}
    tables = merge(configuration.tables, {"plugins": {"settings": {NAME: own}}})
    if not tables["plugins"]["settings"][NAME].get("with"):
        raise UsageError(NOT_NAMED)
    return tables


def _report(
    options: CompareOptions, configuration: Configuration, tables: dict[str, Any]
) -> HtmlReport | None:
    if options.html is None:
        return None
    report = HtmlReport(options.html, tables)
    report.check({"configuration": configuration.file})
    for file in (*options.paths, *options.memories):
        report.check({"file that is read": file})
    return report


class _Found:
    """The conversations that are compared, each read when its turn comes.

    ``failed`` are those that cannot be read, ``remarks`` say what else is left out.
    """

    def __init__(self, options: CompareOptions) -> None:
        self.failed: list[str] = []
        self.remarks: list[str] = []
        self._chosen: list[Transcript] = []
        if options.select is not None:
            self._chosen = [options.read(options.paths[0])]
            self.count = 1
            return
        self._reader = ArchiveReader(
            Sources(options.paths),
            options.format,
            options.memories,
            anywhere=options.memories_anywhere,
        )
        self._survey = Survey(self._reader)
        self.failed += self._survey.failed
        found = list(self._survey.found)
        self._places = [it for it in found if it.responses]
        self.count = len(self._places)
        if not self._places:
            raise UsageError(NO_RESPONSE)
        self.remarks += self._left_out(len(found) - self.count)

    def _left_out(self, without: int) -> Iterator[str]:
        """Yield lines on what is left out; ``without``: conversations without a response."""
        for why, count in (
            Counter({"without a response": without}) + self._survey.left_out
        ).items():
            yield f"{count_of(count, 'conversation')} left out: {why}"
        if records := self._survey.records_left_out:
            yield f"{count_of(records, 'record')} not valid and left out"
        yield from self._reader.sources.passed_over.remarks()

    def __iter__(self) -> Iterator[Transcript]:
        yield from self._chosen
        if not self._chosen:
            for _, it in chosen_transcripts(self._reader, self._survey.files, self._places):
                if isinstance(it, TranscriptError):
                    self.failed.append(str(it))
                else:
                    yield it


class _Pass:
    """Both models over all conversations, loaded once; ``errors`` are of those that failed."""

    def __init__(self, tables: dict[str, Any], found: _Found, screen: Screen) -> None:
        self._tables = tables
        self._found = found
        self._screen = screen
        self._results: list[Result] = []
        self.errors: list[str] = []
        self._is_down = False
        self._untried = 0

    async def run(self) -> Result:
        """Compare the models on each conversation; return the result of all together."""
        transcripts = iter(self._found)
        first = next(transcripts, None)
        if first is None:
            raise TranscriptError("; ".join(self._found.failed) or NO_RESPONSE)
        session, name = Session(first, self._screen.activity), self._tables["plugins"]["settings"]
        # The registry is closed first: a run in flight uses the other model.
        async with AsyncExitStack() as stack, session.open(self._tables):
            try:
                opened = opened_model(self._tables, name[NAME]["with"])
                session.registry.stash[OtherModel] = await stack.enter_async_context(opened)
            except ScorerError:
                # The run meets it again, and reports it.
                pass
            await self._compare(session, first)
            for transcript in transcripts:
                if self._is_hopeless:
                    self._untried = 1 + sum(1 for _ in transcripts)
                    break
                session.transcript = transcript
                await self._compare(session, transcript)
        return _together(self._results, self.errors, self._untried)

    async def _compare(self, session: Session, transcript: Transcript) -> None:
        result = await session.attempt(COMMAND, ())
        self._is_down = result.error is not None and _is_down(session.registry.stash)
        failed = (key for key, it in result.outcomes.items() if it.status == "failed")
        self._results.append(replace(result, keys=tuple(failed)))
        if result.error is not None:
            many = f"{transcript.file}, {transcript.id}: " * (self._found.count > 1)
            self.errors.append(f"{many}{result.error}")

    @property
    def _is_hopeless(self) -> bool:
        """True if the last two conversations failed alike, and not by what they hold."""
        last = [it.error for it in self._results[-2:]]
        return self._is_down and len(last) == 2 and last[0] == last[1]

    def so_far(self) -> str:
        """Say what an interrupted command has done."""
        if self._found.count == 1:
            return ""
        return f": {len(self._results)} of {count_of(self._found.count, 'conversation')} compared"


def _is_down(stash: Mapping[Any, Any]) -> bool:
    """Return whether a model could not be loaded in the last run, or its server did not answer."""
    retry: Retry | None = stash.get(Retry)
    return OtherModel not in stash or retry is None or retry.is_failing


def _together(results: Sequence[Result], errors: Sequence[str], untried: int) -> Result:
    """Return one result of all conversations; ``untried`` are further ones, left out."""
    last = results[-1]
    if len(results) == 1:
        return last
    found = [it.comparison for it in results if it.comparison is not None]
    counts = Counter(it.unit for it in found for _ in it.responses)
    unit = max(counts, key=lambda it: counts[it], default=None)
    kept = [it for it in found if it.unit == unit]
    remarks = list(dict.fromkeys(remark for it in results for remark in it.remarks))
    others = [it for it in found if it.responses and it.unit != unit]
    if others:
        left = "conversation is" if len(others) == 1 else "conversations are"
        remarks.append(f"{len(others)} {left} left out: compared in {others[0].unit}")
    stats = [it.stats for it in results if isinstance(it.stats, MemoryStats)]
    computed = [it.computed_tokens for it in stats]
    failed = f"{len(errors)} of {len(results) + untried} conversations failed"
    if untried:
        failed += f", and {untried} {'was' if untried == 1 else 'were'} not tried"
    return replace(
        last,
        keys=(),
        comparison=Comparison.joined(kept) if kept else None,
        stats=MemoryStats(
            outcomes={},
            calls=sum(it.calls for it in stats),
            prompt_tokens=sum(it.prompt_tokens for it in stats),
            computed_tokens=None if None in computed else sum(filter(None, computed)),
            seconds=sum(it.seconds for it in stats),
        ),
        error=f"{failed}; {errors[0]}" if errors else None,
        remarks=tuple(remarks),
    )
