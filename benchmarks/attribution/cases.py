"""Read the labelled sets: conversations whose memories are known to support an answer, or not."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from mindhooks import Part, Role
from mindscore.conversation.conversation import Transcript
from mindscore.conversation.message import Message, with_ids

MOST_ANSWERS = 5
"""Questions that one conversation of LoCoMo is asked."""

ADVERSARIAL = 5
"""LoCoMo's category of questions that have no answer."""

PASSAGES = "Answer with a few words, by these passages.\n\n"
MEMORIES = "You answer with a few words, by what you remember of the people you know."


@dataclass(frozen=True, slots=True)
class Labels:
    """The keys that are annotated as support of an answer, and as harmful to it."""

    support: frozenset[str]
    harmful: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Case:
    """A conversation whose responses are answers; ``labels`` has those of each, by node id."""

    set: str
    id: str
    held_out: bool
    transcript: Transcript
    labels: Mapping[str, Labels]


Texts = Sequence[tuple[str, str]]
"""Keys of units, and their texts, in the order of the prompt."""

Asked = tuple[str, str, Labels]
"""A question, its answer, and the answer's labels."""


def read_cases(folder: Path, name: str, words: int) -> Iterator[Case]:
    """Yield the cases of the set ``name``, in the order of its file.

    Every other one is kept back (``held_out``). What supports no answer is left out where a context
    would have more than ``words`` words; 0: nothing is.

    Raises:
        OSError: the set's file is not in ``folder``, or cannot be read.
        ValueError: it is not what it should be.
    """
    try:
        made = SETS[name](folder, words)
        for number, (id_, transcript, labels) in enumerate(made):
            yield Case(name, id_, number % 2 == 1, transcript, labels)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder}: the files of {name} have another form: {error!r}") from error


def take(cases: Iterable[Case], answers: int, *, held_out: bool) -> list[Case]:
    """Return the first cases of one half, with as many ``answers`` or a few more."""
    taken: list[Case] = []
    for case in cases:
        if sum(len(it.labels) for it in taken) >= answers:
            break
        if case.held_out == held_out:
            taken.append(case)
    return taken


_Made = Iterator[tuple[str, Transcript, Mapping[str, Labels]]]


def _hotpotqa(folder: Path, words: int) -> _Made:
    """Sentences are the units; the support is annotated by sentence."""
    for number, item in enumerate(_json(folder, "hotpotqa")):
        facts = item["supporting_facts"]
        support = set(zip(facts["title"], facts["sent_id"], strict=True))
        passages = [
            [(f"{at}.{n}", text.strip(), (title, n) in support) for n, text in enumerate(texts)]
            for at, (title, texts) in enumerate(
                zip(item["context"]["title"], item["context"]["sentences"], strict=True)
            )
        ]
        yield _passages(str(number), passages, words, item["question"], item["answer"])


def _musique(folder: Path, words: int) -> _Made:
    """Paragraphs are the units; the support is annotated by paragraph."""
    for item in _json(folder, "musique"):
        passages = [
            [(str(it["idx"]), f"{it['title']}. {it['paragraph_text']}", it["is_supporting"])]
            for it in item["paragraphs"]
        ]
        yield _passages(item["id"], passages, words, item["question"], item["answer"])


def _passages(
    id_: str,
    passages: list[list[tuple[str, str, bool]]],
    words: int,
    question: str,
    answer: str,
) -> tuple[str, Transcript, Mapping[str, Labels]]:
    """Return a conversation whose system message has the passages, each unit a part of it."""
    needed = [any(is_support for *_, is_support in passage) for passage in passages]
    sizes = [sum(len(text.split()) for _, text, _ in passage) for passage in passages]
    room = words - sum(size for size, is_needed in zip(sizes, needed, strict=True) if is_needed)
    parts, support = [Part(PASSAGES, None)], set()
    for passage, size, is_needed in zip(passages, sizes, needed, strict=True):
        if words and not is_needed:
            if size > room:
                continue
            room -= size
        for key, text, is_support in passage:
            if text:
                parts.append(Part(f"{text} ", key))
                support |= {key} if is_support else set()
        parts.append(Part("\n", None))
    system = Message(Role.SYSTEM, "".join(it.text for it in parts), parts=tuple(parts))
    asked = [(question, answer, Labels(frozenset(support)))]
    return _case(id_, (system,), (), asked)


def _locomo(folder: Path, words: int) -> _Made:
    """Observations are the memories; they and the questions name the turns that they are of."""
    for name, talk in _talks(folder):
        texts: list[tuple[str, str]] = []
        evidence: dict[str, set[str]] = {}
        for key, text, turns in _observations(talk):
            if words and sum(len(it.split()) for _, it in texts) + len(text.split()) > words:
                break
            texts.append((key, text))
            for turn in turns:
                evidence.setdefault(turn, set()).add(key)
        asked = [
            (it["question"], str(it["answer"]), Labels(frozenset(support)))
            for it in talk["qa"]
            if it["category"] != ADVERSARIAL and "answer" in it
            if it["evidence"] and evidence.keys() >= set(it["evidence"])
            if (support := {key for turn in it["evidence"] for key in evidence[turn]})
        ]
        if asked:
            step = max(1, len(asked) // MOST_ANSWERS)
            chosen = list(islice(asked[::step], MOST_ANSWERS))
            yield _case(name, (Message(Role.SYSTEM, MEMORIES),), texts, chosen)


def _talks(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with zipfile.ZipFile(_file(folder, "locomo", ".zip")) as archive:
        for name in sorted(it for it in archive.namelist() if it.endswith(".json")):
            yield Path(name).stem, json.loads(archive.read(name))


def _observations(talk: Mapping[str, Any]) -> Iterator[tuple[str, str, list[str]]]:
    """Yield each observation's key, its text, and the turns that it is of, session by session."""
    for number in range(1, len(talk)):
        said = talk.get(f"session_{number}_observation", {})
        for at, (text, turns) in enumerate(it for its in said.values() for it in its):
            named = turns if isinstance(turns, list) else re.split(r"[;,\s]+", turns)
            yield f"s{number}.{at}", text, named


def _causal_locomo(folder: Path, words: int) -> _Made:
    """Memories are labelled as useful, irrelevant or harmful; all are few, and none left out."""
    del words
    file = _file(folder, "causal_locomo", ".jsonl")
    for line in file.read_text(encoding="utf-8").splitlines():
        item = json.loads(line)
        bank, keys = item["memory_bank"], dict[str, list[str]]()
        for it in bank:
            keys.setdefault(it["label"], []).append(it["memory_id"])
        labels = Labels(frozenset(keys.get("useful", ())), frozenset(keys.get("harmful", ())))
        asked = (
            item["current_task"]["instruction"],
            str(item["scoring_criteria"]["expected_answer"]),
            labels,
        )
        texts = [(it["memory_id"], it["content"]) for it in bank]
        yield _case(item["example_id"], (Message(Role.SYSTEM, MEMORIES),), texts, [asked])


SETS: dict[str, Callable[[Path, int], _Made]] = {
    "hotpotqa": _hotpotqa,
    "musique": _musique,
    "locomo": _locomo,
    "causal-locomo": _causal_locomo,
}


def _case(
    id_: str, system: Sequence[Message], texts: Texts, asked: Sequence[Asked]
) -> tuple[str, Transcript, Mapping[str, Labels]]:
    identity = [Message(Role.MEMORY, text, memory_key=key) for key, text in texts]
    turns, labels = list[Message](), {}
    for number, (question, answer, its) in enumerate(asked):
        turns.append(Message(Role.USER, question))
        turns.append(Message(Role.ASSISTANT, answer, id=f"answer-{number}"))
        labels[f"answer-{number}"] = its
    named = with_ids([*system, *identity, *turns])
    first, last = len(system), len(system) + len(identity)
    sections = tuple(named[:first]), tuple(named[first:last]), tuple(named[last:])
    return id_, Transcript(Path(id_), *sections, id=id_), labels


def with_answer(case: Case, node_id: str, text: str) -> Case:
    """Return the case with another text of one answer."""
    transcript = case.transcript
    said = tuple(
        replace(it, text=text) if it.id == node_id else it for it in transcript.conversation
    )
    return replace(case, transcript=replace(transcript, conversation=said))


def _json(folder: Path, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(_file(folder, name, ".json").read_bytes())
    return found


def _file(folder: Path, name: str, ending: str) -> Path:
    found = sorted(folder.glob(f"{name}*{ending}"))
    if not found:
        raise FileNotFoundError(f"{folder}: no file {name}*{ending}")
    return found[0]
