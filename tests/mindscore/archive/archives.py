"""Small archives of native transcripts with the toy, and evidence of them as a test plants it."""

import json
import math
from dataclasses import replace

from mindscore.archive.advise import archive_advice
from mindscore.archive.sources import Sources
from mindscore.archive.survey import ArchiveReader, Survey, chosen_transcripts
from mindscore.archive.verify import verified
from mindscore.config.settings import parse_settings
from mindscore.measure.memories import text_hashes
from mindscore.measure.verdicts import Verdict
from mindscore.scorers.toy import PRIOR, VOCABULARY, ToyScorer
from mindscore.session.session import SilentActivity
from mindscore.store import Evidence, MemoryText, Store

MEMORIES = {
    "tea-1": "Drinks jasmine tea from Fujian.",
    "tea-2": "Fujian jasmine tea is what the user drinks.",
    "dog": "The dog is called Rex.",
    **{f"idle-{n}": f"Note {n}: archive number {n * 7919}." for n in range(4)},
}
ANSWERS = {"drink": "You drink jasmine tea from Fujian.", "pet": "The dog is called Rex."}
SCORED_AT = 1_767_225_600.0
DAY_S = 86_400


class Archive:
    """A folder of transcripts, and a store of what is said to have been measured of them."""

    def __init__(
        self, folder, conversations, memories=MEMORIES, keys=lambda number: None, printed=False
    ):
        self.printed = printed
        """Whether the memories stand in the system prompt, and are no messages of their own."""
        self.folder = folder / "talks"
        self.folder.mkdir()
        self.tables = {
            "server": {"scorer": "toy"},
            "store": {"url": f"sqlite:///{folder}/store.sqlite3", "retention_days": 0},
        }
        self.settings = parse_settings(self.tables)
        self.store = Store(self.settings.store)
        for number in range(conversations):
            chosen = keys(number) or memories
            self.write(number, {key: memories[key] for key in chosen})

    def write(self, number, memories):
        lines = [{"role": "system", "content": "You help."}]
        if self.printed:
            lines[0]["content"] = [
                {"text": "You help.\n"},
                *({"text": f"{it}\n", "key": key} for key, it in memories.items()),
            ]
        else:
            lines += [{"role": "memory", "key": key, "content": it} for key, it in memories.items()]
        for at, (id_, answer) in enumerate(ANSWERS.items()):
            when = f"2026-01-{number % 28 + 1:02}T10:{at:02}:00Z"
            lines.append({"role": "user", "content": f"{id_} in talk {number}?"})
            lines.append({"role": "assistant", "content": answer, "id": id_, "timestamp": when})
        file = self.folder / f"talk-{number:03}.jsonl"
        file.write_text("".join(json.dumps(it) + "\n" for it in lines))

    def transcripts(self):
        reader = ArchiveReader(Sources([self.folder]))
        survey = Survey(reader)
        return [it for _, it in chosen_transcripts(reader, survey.files, survey.select())]

    async def plant(self, effect, model="toy", mode="full", hold=None, keep_texts=True, **changes):
        """Keep ``effect(key, node id, number of the conversation)`` as each cell's nats."""
        rows, texts = [], {}
        for number, it in enumerate(self.transcripts()):
            hashes = text_hashes(it)
            for node in (*it.system, *it.identity):
                for part in (node, *node.parts):
                    if part.memory_key:
                        name = (part.memory_key, hashes[part.memory_key])
                        text = part.text if keep_texts else None
                        texts[name] = MemoryText(*name, text, 8, SCORED_AT, SCORED_AT)
            for key, text_hash in hashes.items():
                for index, id_ in it.responses():
                    signed = effect(key, id_, number)
                    row = Evidence(
                        conversation=it.id,
                        model=model,
                        key=key,
                        text_hash=text_hash,
                        mode=mode,
                        node_id=id_,
                        entry_idx=index,
                        divergence=max(0.0, signed),
                        signed=signed,
                        hold=None if hold is None else hold(key, id_),
                        noise=None,
                        tokens=7,
                        responded_at=SCORED_AT + number * DAY_S,
                        scored_at=SCORED_AT,
                    )
                    rows.append(replace(row, **changes))
        await self.store.add_evidence(rows)
        await self.store.record_texts(texts.values())

    async def advise(self, **options):
        advice, _ = await archive_advice(self.settings, **options)
        return advice

    async def receipt(self, *dropped, tables=None, **options):
        """The receipt of dropping exactly these memories; of none: of what is proposed."""
        advice, evidence = await archive_advice(self.settings)
        if dropped:
            verdicts = [
                replace(it, verdict=Verdict.DROP if it.key in dropped else Verdict.KEEP)
                for it in advice.advice
            ]
            advice = replace(advice, advice=tuple(verdicts))
        activity = SilentActivity()
        return await verified(
            advice, evidence, tables or self.tables, self.transcripts, activity=activity, **options
        )


def chance(key, node_id, number):
    """A small effect of no meaning: up to 0.05 nats, of either sign, other ones each time."""
    return 0.05 * math.sin(1 + hash_of(key, node_id, number) % 1000) or 0.01


def hash_of(*parts):
    total = 7
    for character in repr(parts):
        total = (total * 31 + ord(character)) % 1_000_003
    return total


async def joint_ablation(transcripts, gone):
    """The effect on each response of all of ``gone``: naively, from the toy's formula.

    By conversation and node id.
    """
    found = {}
    for it in transcripts:
        context = await it.context(ToyScorer().tokenize)
        nodes = (*context.system, *context.identity, *context.conversation)
        left = [node for node in nodes if node.memory_key not in gone]
        if len(left) < len(nodes):
            with_, without = totals(nodes), totals(left)
            found |= {(it.id, id_): with_[id_] - without[id_] for id_ in with_}
    return found


def totals(nodes):
    """The total log-probability of each response, by node id."""
    prompt, found = [], {}
    for node in nodes:
        ids = list(node.token_ids)
        start, end = node.body
        for at in range(start, end):
            before = [*prompt, *ids[:at]]
            seen = before.count(ids[at])
            logprob = math.log((seen + PRIOR / VOCABULARY) / (len(before) + PRIOR))
            found[node.id] = found.get(node.id, 0.0) + logprob
        prompt += ids
    return found
