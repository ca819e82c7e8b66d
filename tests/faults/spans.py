"""Hostile spans: broken, nested, huge and strange, in protobuf and in JSON, over HTTP."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import resource
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from mindscore.collect.app import make_app
from mindscore.collect.endpoints import CollectEndpoints
from mindscore.collect.queue import CollectedTurns
from mindscore.http.runner import listen

from .attack import Attacks, Finding
from .input import NASTY

ANSWERS = (200, 400, 413, 415, 429)
QUEUE_BYTES = 16 * 2**20
MOST_MIB = 600
"""Memory that the whole attack may take."""

SAID = [
    {"role": "system", "parts": [{"type": "text", "content": "Nora drinks rooibos."}]},
    {"role": "user", "parts": [{"type": "text", "content": "What shall I drink?"}]},
    {
        "role": "assistant",
        "parts": [{"type": "tool_call", "id": "1", "name": "f", "arguments": {}}],
    },
    {"role": "tool", "parts": [{"type": "tool_call_response", "id": "1", "response": "42"}]},
    {"role": "assistant", "parts": [{"type": "text", "content": "A pot of rooibos."}]},
]
NAMES = [
    "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions",
    "gen_ai.tool.definitions", "gen_ai.conversation.id", "gen_ai", "gen_ai.input", "session.id",
    "llm.input_messages.0.message.content", "llm.input_messages.0", "llm.output_messages.0.message",
    "llm.tools.0.tool.json_schema", "gen_ai.prompt.0.content", "gen_ai.completion.0.content",
    "ai.prompt.messages", "ai.response.text", "ai.response.toolCalls", "my.memories", "",
    "langfuse.observation.input", "langfuse.observation.output", "gen_ai.operation.name", "." * 50,
    "a." * 3000,
]  # fmt: skip


def _text(chance: random.Random) -> str:
    """Return JSON of a conversation with something wrong in it, or something else."""
    raw = json.dumps(chance.choice([SAID, SAID[:2], SAID[-1:], [SAID], SAID[0]])).encode()
    for _ in range(chance.randint(0, 3)):
        at, payload = chance.randrange(len(raw) + 1), chance.choice(NASTY)
        raw = raw[:at] + payload + raw[at + chance.choice([0, 0, 1, 10]) :]
    return raw.decode("utf-8", "replace")


def _fill(value: Any, chance: random.Random, depth: int = 0) -> None:
    kind = chance.choice(
        ["string", "string", "string", "int", "double", "bytes", "list", "map", "no"]
    )
    if kind == "string":
        value.string_value = _text(chance)
    elif kind == "int":
        value.int_value = chance.choice([0, -1, 2**63 - 1])
    elif kind == "double":
        value.double_value = chance.choice([0.5, float("nan"), float("inf")])
    elif kind == "bytes":
        value.bytes_value = chance.randbytes(9)
    elif depth < 60 and kind == "list":
        for _ in range(chance.randint(0, 2)):
            _fill(value.array_value.values.add(), chance, depth + 1)
    elif depth < 60 and kind == "map":
        for _ in range(chance.randint(0, 2)):
            inner = value.kvlist_value.values.add(key=chance.choice([*NAMES, "role", "content"]))
            _fill(inner.value, chance, depth + 1)


def _request(chance: random.Random) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for _ in range(chance.randint(1, 3)):
        span = spans.add(
            trace_id=chance.randbytes(chance.choice([0, 1, 16, 40])),
            span_id=chance.randbytes(chance.choice([0, 8, 8])),
            end_time_unix_nano=chance.choice([0, 1, 2**64 - 1, 1_790_000_000 * 10**9]),
        )
        span.attributes.add(key=NAMES[0]).value.string_value = json.dumps(SAID[:-1])
        span.attributes.add(key=NAMES[1]).value.string_value = json.dumps(SAID[-1:])
        for _ in range(chance.randint(0, 3)):
            _fill(span.attributes.add(key=chance.choice(NAMES)).value, chance)
        if chance.random() < 0.2:
            event = span.events.add(name=chance.choice(["gen_ai.choice", "gen_ai.user.message"]))
            _fill(event.attributes.add(key="content").value, chance)
        if chance.random() < 0.5:
            del span.attributes[: chance.randint(1, 2)]
    return request


def _body(chance: random.Random) -> tuple[bytes, dict[str, str]]:
    request = _request(chance)
    headers = {"Content-Type": "application/x-protobuf"}
    if chance.random() < 0.4:
        headers["Content-Type"] = "application/json"
        raw = json_format.MessageToJson(request, indent=None).encode()
    else:
        raw = request.SerializeToString()
    for _ in range(chance.choice([0, 0, 1, 2])):
        at = chance.randrange(len(raw) + 1)
        payload = chance.choice([chance.choice(NASTY), chance.randbytes(4), b""])
        raw = raw[:at] + payload + raw[at + chance.choice([0, 1, 8, 100]) :]
    if chance.random() < 0.2:
        raw = gzip.compress(raw, 1)
        headers["Content-Encoding"] = chance.choice(["gzip", "gzip", "identity", "br"])
        raw = raw[: len(raw) - chance.choice([0, 0, 0, 5])]
    return raw, headers


async def _send(trials: int, folder: Path) -> tuple[list[str], Counter[int], int]:
    chance = random.Random(18)
    failures: list[str] = []
    seen = Counter[int]()
    queue = CollectedTurns(folder / "queue.sqlite3", QUEUE_BYTES)
    endpoints = CollectEndpoints(queue, idle_s=1e6, memory_attribute="my.memories")
    async with (
        listen(make_app(endpoints)) as listening,
        aiohttp.ClientSession() as session,
    ):
        for number in range(trials):
            body, headers = _body(chance)
            url = f"{listening.address}/v1/traces"
            async with session.post(url, data=body, headers=headers) as answer:
                said = await answer.read()
                seen[answer.status] += 1
                if answer.status not in ANSWERS:
                    failures.append(f"trial {number}: {answer.status} {said[:200]!r}")
    kept = 0
    while (turn := queue.next(after=0)) is not None:
        # What was taken can be scored.
        turn.record.conversation(turn.name)
        kept += turn.turns
        queue.remove(turn)
    return failures, seen, kept


def hostile_spans(trials: int) -> Finding:
    """Send them one after the other; what is taken must be readable later."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        failures, seen, kept = asyncio.run(_send(trials, Path(folder)))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    if grown > MOST_MIB:
        failures.append(f"memory grew by {grown} MiB")
    refused = trials - seen[200]
    figure = f"{refused:,} requests refused, {kept:,} turns kept; memory +{grown} MiB"
    return Finding(
        "a hostile span is refused or read, and what is read can be scored",
        "spans that are broken, nested, cut or strange, in protobuf and JSON, over HTTP",
        trials,
        failures,
        figure,
    )


ATTACKS: Attacks = {hostile_spans: 20_000}
