"""Set the receipt of ``advise --verify`` beside the joint ablation measured naively, on LoCoMo.

``python tests/bench/locomo.py FOLDER [--conversation 0] [--sessions 6] [--memories 12] [--drop 6]
[--scorer local]``. FOLDER holds the ten conversations of LoCoMo (https://github.com/snap-research/locomo)
as JSON files, or a zip file of them. The sessions of one conversation become transcripts, one
speaker's turns being the responses; the observations of the first two sessions are the memories
that each of the others has.
Those that help the least are removed together, whatever their verdicts: few sessions are not enough
evidence for any. The naive way renders each transcript anew without them, and asks the scorer
itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from mindhooks import Registry
from mindhooks.testing import StubMind
from mindscore.archive.advise import archive_advice
from mindscore.archive.sources import Sources
from mindscore.archive.survey import ArchiveReader
from mindscore.archive.unit import open_unit
from mindscore.archive.verify import verified
from mindscore.config.settings import parse_settings
from mindscore.conversation.conversation import Transcript
from mindscore.measure.archive_advice import ArchiveAdvice
from mindscore.measure.verdicts import Verdict
from mindscore.session.session import Session, SilentActivity


def read_locomo(folder: Path) -> list[dict[str, Any]]:
    """Return the conversations of the data set, in the order of their files' names."""
    texts = {str(it): it.read_bytes() for it in folder.rglob("*.json")}
    for file in folder.rglob("*.zip"):
        with zipfile.ZipFile(file) as archive:
            names = [it for it in archive.namelist() if it.endswith(".json")]
            texts |= {name: archive.read(name) for name in names}
    found = [json.loads(texts[name]) for name in sorted(texts)]
    return [it for it in found if "session_1_observation" in it]


def write_sessions(talk: dict[str, Any], folder: Path, sessions: int, memories: int) -> None:
    """Write sessions as transcripts, each with the first observations as memories."""
    answering, observed = talk["speaker_b"], talk["session_1_observation"]
    facts = [text for its in observed.values() for text, *_ in its]
    facts += [text for its in talk["session_2_observation"].values() for text, *_ in its]
    for number in range(3, sessions + 3):
        lines = [{"role": "system", "content": f"You are {answering}."}]
        lines += [
            {"role": "memory", "key": f"fact-{at:02}", "content": text}
            for at, text in enumerate(facts[:memories])
        ]
        for turn in talk.get(f"session_{number}", []):
            role = "assistant" if turn["speaker"] == answering else "user"
            lines.append({"role": role, "content": turn["text"]})
        text = "".join(json.dumps(line) + "\n" for line in lines)
        folder.joinpath(f"session-{number:02}.jsonl").write_text(text, encoding="utf-8")


async def joint_ablation(
    tables: dict[str, Any], transcripts: list[Transcript], gone: set[str]
) -> dict[tuple[str, str], float]:
    """Return the effect of ``gone`` on each response: two prompts each, straight to the scorer."""
    found = {}
    async with Registry(StubMind(), tables) as registry:
        scorer = await registry.scorer()
        for it in transcripts:
            left = replace(it, identity=tuple(m for m in it.identity if m.memory_key not in gone))
            totals = []
            for each in (it, left):
                session = Session(each)
                async with Registry(session, tables, scorer=scorer) as own:
                    session.listen(own)
                    context = await session.context()
                prompt = context.wire_prompt(range(len(context.conversation)), lambda _: False)
                answers = await scorer.score([prompt])
                ranges = getattr(answers, "ranges", answers)[0]
                scores = [score.total for score in ranges]
                totals.append(dict(zip(prompt.node_ids, scores, strict=True)))
            for node_id, total in totals[0].items():
                found[it.id, node_id] = total - totals[1][node_id]
    return found


def proposing(advice: ArchiveAdvice, number: int) -> ArchiveAdvice:
    """Return the advice with the least helping memories proposed to go, and no others."""
    ranked = sorted(advice.advice, key=lambda it: it.evidence.nats)
    least = {it.key for it in ranked[:number]}
    verdicts = [
        replace(it, verdict=Verdict.DROP if it.key in least else Verdict.KEEP)
        for it in advice.advice
    ]
    return replace(advice, advice=tuple(verdicts))


async def run(given: argparse.Namespace, folder: Path) -> None:
    """Score the sessions, then compare both ways."""
    talks = folder / "talks"
    talks.mkdir()
    sample = read_locomo(given.folder)[given.conversation]
    write_sessions(sample, talks, given.sessions, given.memories)
    tables = {
        "server": {"scorer": given.scorer},
        "store": {"url": f"sqlite:///{folder}/store.sqlite3"},
    }

    def transcripts() -> Iterator[Transcript]:
        sources = Sources([talks])
        reader = ArchiveReader(sources)
        for file in sources:
            yield from reader.transcripts(file)

    async with open_unit(tables) as unit:
        for it in transcripts():
            scored = await unit.score(it, "score-full")
            sys.stdout.write(f"{it.file.name}: {scored.error or 'scored'}\n")
    advice, evidence = await archive_advice(parse_settings(tables))
    if evidence is None:
        raise SystemExit("nothing was scored")
    advice = proposing(advice, given.drop)
    receipt = await verified(advice, evidence, tables, transcripts, activity=SilentActivity())
    for what, removal in (("first round", receipt.first), ("last round", receipt.last)):
        naive = await joint_ablation(tables, list(transcripts()), set(removal.keys))
        sums = math.fsum(naive.values())
        effects = {
            (it.place.conversation, it.place.node_id): it.signed
            for it in (*removal.worst, *removal.best)
        }
        apart = max((abs(naive[name] - it) for name, it in effects.items()), default=0.0)
        sys.stdout.write(
            f"{what}: without {len(removal.keys)} of {given.memories} memories, "
            f"{removal.responses} responses; receipt {removal.net:+.4f} nats in all "
            f"(lost {removal.lost:.4f} on {removal.missed}, gained {removal.gained:.4f} on "
            f"{removal.freed}), naive {sums:+.4f}; the largest effects differ by {apart:.1e}; "
            f"{removal.tokens_a_turn:.0f} tokens a turn\n"
        )
    single = sum(it.evidence.nats for it in advice.removable)
    sys.stdout.write(
        f"kept: {', '.join(receipt.kept) or 'none'}; the sum of the single effects is "
        f"{single:+.4f}; {receipt.calls} calls, {receipt.prompt_tokens:,} tokens\n"
    )


def main() -> None:
    """Run it in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    for name, value in (("conversation", 0), ("sessions", 6), ("memories", 12), ("drop", 6)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--scorer", default="local")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(given, Path(folder)))


if __name__ == "__main__":
    main()
