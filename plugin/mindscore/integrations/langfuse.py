"""Langfuse's traces and observations, as its export and its API return them. As of 3.

Each generation holds the whole prompt that the model got.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mindscore.conversation.conversation import Conversation
from mindscore.readers import Source, first_text
from mindscore.readers.requests import ModelRequest, read_answers, read_prompt, read_requests

GENERATION = "GENERATION"


class LangfuseReader:
    """Reads generations; a conversation is the longest of a session, or else of a trace."""

    def detects(self, source: Source) -> bool:
        """Return true if it begins with a trace, or an observation, of Langfuse's."""
        first = source.sample
        if isinstance(first, dict) and isinstance(first.get("data"), list) and first["data"]:
            first = first["data"][0]
        if not isinstance(first, dict):
            return False
        observed = first.get("observations")
        kind = first.get("type")
        is_observation = isinstance(kind, str) and kind.isupper() and "traceId" in first
        return (isinstance(observed, list) and "id" in first) or (
            is_observation and "input" in first
        )

    def read(self, source: Source) -> Iterator[Conversation]:
        """Yield the conversations, named by their sessions or traces."""
        return read_requests(source, _observations(source), _request)


def _observations(source: Source) -> Iterator[tuple[str, dict[str, Any]]]:
    for where, record in source.objects():
        data = record.get("data")
        for number, it in enumerate(data if isinstance(data, list) else [record], start=1):
            place = f"{where}, item {number}" if isinstance(data, list) else where
            if not isinstance(it, dict):
                continue
            observed = it.get("observations")
            if not isinstance(observed, list):
                yield place, it
                continue
            trace = {"traceId": it.get("id"), "sessionId": it.get("sessionId")}
            for at, observation in enumerate(observed, start=1):
                if isinstance(observation, dict):
                    yield f"{place}, observation {at}", {**observation, **trace}


def _request(where: str, observation: dict[str, Any]) -> ModelRequest | None:
    del where
    if observation.get("type") != GENERATION:
        return None
    messages, tools = read_prompt(observation.get("input"))
    name = first_text(observation.get("sessionId"), observation.get("traceId"))
    return ModelRequest(
        name or first_text(observation.get("id")),
        first_text(observation.get("startTime")),
        messages,
        read_answers(observation.get("output")),
        tools,
    )
