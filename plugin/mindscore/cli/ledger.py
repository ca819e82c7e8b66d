"""``mindscore ledger``: what the model has internalised, round after round."""

from __future__ import annotations

import asyncio
import shlex
import sys

from rich.text import Text

from mindhooks import Registry
from mindhooks.testing import StubMind
from mindscore._util.text import printable
from mindscore.cli.interruption import DONE, run_until_interrupted
from mindscore.cli.rounds import trained_answers
from mindscore.cli.store import one_model
from mindscore.cli.train_options import LedgerOptions
from mindscore.config.file import Configuration
from mindscore.display.ledger import ledger_document, ledger_tables, refused_lines
from mindscore.display.screen import Screen, new_console, own_output, write_json
from mindscore.store import Ledger, Reviews
from mindscore.training.ledger import Measurer

NOTHING = (
    "The ledger is empty: mindscore train fills it after a training by mindscore serve --train."
)


def run_ledger(options: LedgerOptions) -> int:
    """Print the ledger, measure a round before if asked to, and return the exit status.

    Raises:
        UsageError: there is nothing of the model asked for, or it must be said which.
    """
    configuration = options.load()
    ledger = Ledger(configuration.settings.store)
    with Screen() as screen, own_output():
        if options.measure is not None:
            name = options.measure
            run_until_interrupted(
                lambda: _measure(name, options, configuration, screen), lambda: ""
            )
        models = asyncio.run(ledger.models())
        current = ledger.current(models)
        listed = current if options.model in (None, *current) else models
        model = asyncio.run(one_model(listed, options.model, configuration, "rounds"))
        rounds = [] if model is None else asyncio.run(ledger.rounds(model))
        refused = [] if model is None else asyncio.run(ledger.refused(model))
        others = ledger.replaced(models, model or "")
    if options.json:
        write_json(ledger_document(model or "", rounds, refused, others))
    elif not rounds and not refused:
        sys.stdout.write(f"{NOTHING}\n")
    else:
        console = new_console()
        for it in ledger_tables(rounds) if rounds else ():
            console.print(it)
        for line in refused_lines(refused):
            console.print(Text(printable(line)))
        for other in others:
            asked = f"mindscore ledger --model {shlex.quote(other)}"
            console.print(Text(printable(f"rounds of weights that were replaced: {asked}")))
    return DONE


async def _measure(
    name: str, options: LedgerOptions, configuration: Configuration, screen: Screen
) -> None:
    queue = await Reviews(configuration.settings.store).queue()
    models = {it.model for it in queue}
    model = await one_model(models, options.model, configuration, "candidates")
    answers = await trained_answers(configuration, model or "")
    async with Registry(StubMind(), configuration.tables) as registry:
        scorer = await registry.scorer()
        with screen.activity("ledger") as activity:
            ledger = Ledger(configuration.settings.store)
            measurer = Measurer(scorer, ledger, model or "", activity)
            adapter = getattr(scorer, "adapter", None) or ""
            await measurer.measure(name, adapter, answers)
    for remark in measurer.left_out.remarks():
        sys.stderr.write(f"mindscore: {printable(remark)}\n")
