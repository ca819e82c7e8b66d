"""A collector on a real socket, and spans as instrumentations send them."""

import io
import json
from contextlib import asynccontextmanager

import aiohttp
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from mindscore.collect.app import make_app
from mindscore.collect.endpoints import CollectEndpoints
from mindscore.collect.queue import CollectedTurns
from mindscore.collect.turns import TurnRequest, turn_of
from mindscore.http.runner import listen

PROTOBUF = {"Content-Type": "application/x-protobuf"}


@pytest.fixture
def make_queue(tmp_path):
    """``make_queue(limit)``: the queue, in a file that stays for the test."""
    return lambda limit=2**20: CollectedTurns(tmp_path / "queue.sqlite3", limit)


@pytest.fixture
def queue(make_queue):
    """An empty queue."""
    return make_queue()


class Client:
    """Asks one collector; ``url`` is its root."""

    def __init__(self, url, session):
        self.url = url
        self._session = session

    async def post(self, path, body, headers=PROTOBUF):
        """Return status, headers and body of the answer."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        kind = headers if isinstance(body, bytes) else {"Content-Type": "application/json"}
        sent = io.BytesIO(data)
        async with self._session.post(self.url + path, data=sent, headers=kind) as answer:
            return answer.status, answer.headers, await answer.read()

    async def send(self, *spans, **headers):
        """Send spans as protobuf; return the answer's partial success."""
        status, _, body = await self.post("/v1/traces", request_of(*spans), PROTOBUF | headers)
        assert status == 200, body
        return body

    async def health(self):
        async with self._session.get(f"{self.url}/v1/health") as answer:
            return await answer.json()


@pytest.fixture
def collecting(queue):
    """``async with collecting() as client``: it stores in ``queue``."""

    @asynccontextmanager
    async def collecting(key=None, turns=None, idle_s=0.0, memory_attribute=None):
        endpoints = CollectEndpoints(
            turns or queue, idle_s=idle_s, memory_attribute=memory_attribute
        )
        async with (
            listen(make_app(endpoints, key)) as listening,
            aiohttp.ClientSession() as session,
        ):
            yield Client(listening.address, session)

    return collecting


def request_of(*spans):
    """Return an OTLP request; a span is its attributes, with ``trace``, ``span``, ``events``."""
    request = ExportTraceServiceRequest()
    for number, given in enumerate(spans, start=1):
        attributes = dict(given)
        added = (
            request.resource_spans.add()
            .scope_spans.add()
            .spans.add(
                trace_id=bytes.fromhex(attributes.pop("trace", f"{number:032x}")),
                span_id=bytes.fromhex(attributes.pop("span", f"{number:016x}")),
                end_time_unix_nano=attributes.pop("end", 0),
                dropped_attributes_count=attributes.pop("dropped", 0),
                dropped_events_count=attributes.pop("dropped_events", 0),
            )
        )
        for name, fields in attributes.pop("events", ()):
            event = added.events.add(name=name)
            for key, value in fields.items():
                event.attributes.add(key=key).value.string_value = value
        for key, value in attributes.items():
            it = added.attributes.add(key=key).value
            if isinstance(value, list) and all(isinstance(inner, str) for inner in value):
                for inner in value:
                    it.array_value.values.add().string_value = inner
            else:
                it.string_value = value if isinstance(value, str) else json.dumps(value)
    return request.SerializeToString()


def parts(role, text):
    """A message of the GenAI conventions."""
    return {"role": role, "parts": [{"type": "text", "content": text}]}


@pytest.fixture
def span():
    """``span("system", "u1", "a1", …, name="kitchen")``: a GenAI span; the last is the answer."""

    def span(system, *said, name="kitchen", **more):
        roles = ["user", "assistant"] * len(said)
        messages = [parts("system", system)] if system else []
        messages += [parts(*it) for it in zip(roles, said, strict=False)]
        named = {"gen_ai.conversation.id": name} if name else {}
        return {
            "gen_ai.input.messages": messages[:-1],
            "gen_ai.output.messages": messages[-1:],
            **named,
            **more,
        }

    return span


@pytest.fixture
def turn():
    """``turn("u1", "a1", …, name="kitchen", id="t1")``: a turn as ``POST /v1/turns`` makes it."""

    def turn(*said, name="kitchen", system="You help.", **more):
        roles = ["user", "assistant"] * len(said)
        messages = [{"role": "system", "content": system}] if system else []
        messages += [{"role": r, "content": t} for r, t in zip(roles, said, strict=False)]
        return turn_of(
            TurnRequest(conversation=name, messages=messages[:-1], response=messages[-1], **more)
        )

    return turn


@pytest.fixture
def waiting():
    """``waiting(queue)``: by its name, what each conversation that waits says, and for how many."""

    def waiting(queue):
        found = {}
        while (it := queue.next(after=0)) is not None:
            said = it.record.conversation(it.name).messages
            found[it.name] = ([m.text for m in said if m.role != "system"], it.turns)
            queue.remove(it)
        return found

    return waiting
