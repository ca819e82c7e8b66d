"""ATIF, the Agent Trajectory Interchange Format: a ``trajectory.json``, or one a line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mindscore.conversation.conversation import Conversation
from mindscore.readers.reading import Reading, tool_call
from mindscore.readers.source import Source, first_text, kind_of

PREFIX = "ATIF-"
ROLES = {"system": "system", "user": "user", "agent": "assistant"}


class ATIFReader:
    """Reads ATIF 1.0 to 1.8: each step is a message, and each of its observations one of a tool."""

    def detects(self, source: Source) -> bool:
        """Return true if it begins with an object of that schema version."""
        first = source.sample
        version = first.get("schema_version") if isinstance(first, dict) else None
        return isinstance(version, str) and version.startswith(PREFIX)

    def read(self, source: Source) -> Iterator[Conversation]:
        """Yield the file's trajectories, named by their ids, their sessions' or numbers.

        Raises:
            TranscriptError: no trajectory is valid; the text names the place of the first fault.
        """

        def conversation(number: str, where: str, record: dict[str, Any]) -> Conversation:
            return _Trajectory(source, where, record).conversation(number)

        return source.read_each(source.objects(), conversation, _name)


def _name(record: dict[str, Any]) -> str:
    return first_text(record.get("trajectory_id"), record.get("session_id"))


class _Trajectory:
    def __init__(self, source: Source, where: str, record: dict[str, Any]) -> None:
        self._source, self._where, self._record = source, where, record
        self._reading = Reading(source)
        self._copied = 0
        self._has_ids = False

    def conversation(self, number: str) -> Conversation:
        record = self._record
        steps = self._source.items(self._where, "steps", record.get("steps"), "step")
        for place, step in steps:
            self._step(place, step)
        self._remark(record.get("subagent_trajectories"))
        agent = record.get("agent")
        tools = agent.get("tool_definitions") if isinstance(agent, dict) else None
        id_ = _name(record)
        return self._reading.conversation(id_ or number, tools=tools, id_=id_)

    def _step(self, where: str, step: dict[str, Any]) -> None:
        with self._reading.placed(where):
            fields = _message(step)
            results = _results(step.get("observation"))
        metrics = step.get("metrics")
        if isinstance(metrics, dict):
            ids = ("prompt_token_ids", "completion_token_ids")
            self._has_ids = self._has_ids or any(metrics.get(name) for name in ids)
        self._copied += step.get("is_copied_context") is True
        self._reading.add(where, fields, timestamp=step.get("timestamp"))
        for at, result in enumerate(results, start=1):
            self._reading.add(
                f"{where}, result {at}",
                {"role": "tool", "content": result.get("content")},
                timestamp=step.get("timestamp"),
            )

    def _remark(self, subagents: Any) -> None:
        remarks = self._reading.remarks
        if self._has_ids:
            remarks.append("recorded token ids are not used: the texts are tokenised anew")
        if self._copied:
            remarks.append(
                f"steps copied from an earlier trajectory ({self._copied:,}) are scored like any "
                "other, but are not meant for training"
            )
        if isinstance(subagents, list) and subagents:
            remarks.append(f"trajectories of subagents ({len(subagents):,}) are not read")


def _message(step: dict[str, Any]) -> dict[str, Any]:
    speaker, number = step.get("source"), step.get("step_id")
    if not isinstance(speaker, str) or speaker not in ROLES:
        raise ValueError(f"'source': expected one of {', '.join(ROLES)}, got {speaker!r}")
    text = step.get("message")
    if not isinstance(text, str | list):
        raise ValueError(f"'message': expected text or parts, got {kind_of(text)}")
    calls = step.get("tool_calls") or []
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise ValueError("'tool_calls': expected an array of objects")
    return {
        "role": ROLES[speaker],
        "content": text,
        "id": f"step-{number}" if isinstance(number, int) else None,
        "reasoning_content": step.get("reasoning_content"),
        "tool_calls": [tool_call(it.get("function_name"), it.get("arguments")) for it in calls],
    }


def _results(observation: Any) -> list[dict[str, Any]]:
    results = observation.get("results") if isinstance(observation, dict) else observation
    if results is None:
        return []
    if not isinstance(results, list) or not all(isinstance(it, dict) for it in results):
        raise ValueError("'observation': expected results, an array of objects")
    return results
