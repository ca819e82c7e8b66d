"""The memories that a response leaned on, and the responses of a memory, linked both ways."""

import html
import re
from dataclasses import replace
from urllib.parse import quote

import pytest

from mindhooks import MemoryScore, ResponseDivergence
from mindscore.config.settings import parse_settings
from mindscore.review.leaning import Leanings
from mindscore.review.runs import Runs
from mindscore.store import History, Store

from .client import Client


def words(answer):
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", answer.text)).split())


def effects(answer):
    """What a page lists: the effect and what it is of, those within noise after None."""
    found = []
    for item in re.findall(r"<li>(.*?)</li>|(<details)", answer.text, flags=re.DOTALL):
        if item[1]:
            found.append(None)
        elif 'class="number' in item[0]:
            text = re.sub(r"<[^>]*>", " ", item[0]).split()
            found.append(" ".join(text[: 3 if text[0] == "≈" else 2]))
    return found


@pytest.fixture
def measured(tables, reviewing):
    """A page of three memories on two responses, of the conversations ``one`` and ``two``."""
    with reviewing(tables) as page:
        yield page


def measure(page, key, conversation="one", **cells):
    """Keep a row of the matrix; ``node=(signed, noise)``."""
    row = tuple(
        ResponseDivergence(at, node, max(0.0, signed), signed, noise)
        for at, (node, (signed, noise)) in enumerate(cells.items(), start=3)
    )
    score = MemoryScore(key, max(it.divergence for it in row), "full", row)
    page.run(Store(page.settings.store).record_row(score, "toy", conversation=conversation))


def test_a_response_lists_its_memories_the_strongest_first_and_noise_apart(measured):
    small = {f"small {at}": 0.3 - at / 100 for at in range(9)}
    for key, nats in {"a": 2.0, "b": 9.0, "c": -4.0, "below": -0.1, **small}.items():
        measure(measured, key, n=(nats, 0.5))
    answer = Client(measured).let_in().ask("GET", "/response?node=n")
    assert answer.status == 200
    listed = effects(answer)
    assert listed[:4] == ["+9.00 b", "+2.00 a", "-4.00 c", None]
    assert [it.split()[0] for it in listed[4:]] == [f"+0.{30 - at}" for at in range(9)] + ["-0.10"]
    assert "Within noise: 10" in words(answer)
    assert "Response #3" in words(answer)


def test_the_page_of_a_memory_leads_to_its_responses_and_these_lead_back(measured):
    measure(measured, "a & b", n=(5.0, 0.5), m=(2.0, 0.5))
    client = Client(measured).let_in()
    memory = client.ask("GET", f"/memory?model=toy&key={quote('a & b')}")
    links = [html.unescape(it) for it in re.findall(r'href="(/response[^"]*)"', memory.text)]
    assert [re.search(r"node=(\w)", it)[1] for it in links] == ["n", "m"]
    assert all("conversation=one" in it for it in links)
    response = client.ask("GET", links[1])
    assert effects(response) == ["+2.00 a"]
    [back] = re.findall(r'href="(/memory[^"]*)"', response.text)
    assert "+5.00" in client.ask("GET", html.unescape(back)).text


def test_a_response_of_the_same_id_in_another_conversation_is_another_response(measured):
    measure(measured, "a", "one", n=(5.0, 0.5))
    measure(measured, "b", "two", n=(7.0, 0.5))
    client = Client(measured).let_in()
    assert effects(client.ask("GET", "/response?node=n&conversation=one")) == ["+5.00 a"]
    assert effects(client.ask("GET", "/response?node=n&conversation=two")) == ["+7.00 b"]
    unnamed = client.ask("GET", "/response?node=n")
    assert effects(unnamed) == []
    assert "Several conversations have a response of this id" in words(unnamed)
    assert client.ask("GET", "/response?node=n&conversation=three").status == 404
    assert client.ask("GET", "/response?node=zz").status == 404


async def test_cells_of_an_unknown_conversation_are_those_of_any_named_one(tables):
    settings = parse_settings(tables).store
    score = MemoryScore("a", 5.0, "full", (ResponseDivergence(1, "n", 5.0, 5.0, 0.5),))
    await Store(settings).record_row(score, "toy")
    leaned = await Leanings(settings, Runs(None, tables)).of("toy", "n", "one")
    assert [it.cell.key for it in leaned.clear] == ["a"]
    assert not leaned.is_ambiguous


def test_estimates_are_marked(measured, monkeypatch):
    measure(measured, "a", n=(5.0, 0.5))
    of = History.cells

    async def cells(self, *args, **options):
        found = await of(self, *args, **options)
        return [*found, *(replace(it, key="guess", mode="estimate", signed=3.0) for it in found)]

    monkeypatch.setattr(History, "cells", cells)
    answer = Client(measured).let_in().ask("GET", "/response?node=n")
    assert effects(answer) == ["+5.00 a", "≈ +3.00 guess"]
    assert "≈: a screen's estimate, not measured." in words(answer)


def test_a_candidate_says_what_it_leaned_on_and_the_matrix_links_to_it(
    filled, transcript, reviewing
):
    with reviewing(filled, transcript()) as page:
        client = Client(page).let_in()
        node = page.queue()[0].candidate.node_id
        candidate = client.ask("GET", "/candidates")
        assert effects(candidate)[0] == "+54.86 tea"
        assert "Nora drinks rooibos tea in the evening" in words(candidate)
        assert f"/response?model=toy&amp;node={node}" in candidate.text
        matrix = client.ask("GET", "/matrix")
        [link] = [it for it in re.findall(r'href="(/response[^"]*)"', matrix.text) if node in it]
        assert effects(client.ask("GET", html.unescape(link)))[0] == "+54.86 tea"
        assert "/memory?model=toy&amp;key=tea" in matrix.text
    with reviewing(filled) as page:
        # Its text is not kept, and its effects are.
        answer = Client(page).let_in().ask("GET", f"/response?node={node}")
        assert effects(answer)[0] == "+54.86 tea"


def test_a_candidate_of_another_conversation_leaned_on_what_that_one_had(
    filled, transcript, reviewing
):
    """Hosts number their messages: the page's conversation has a response of the same id."""
    with reviewing(filled, transcript()) as page:
        found = page.queue()[0].candidate
        other = replace(found, timestamp_ns=1, divergence=99.0, response_text="Another.")
        store = Store(page.settings.store)
        page.run(store.record_candidate(other, "toy", conversation="elsewhere"))
        client = Client(page).let_in()
        assert "It was measured in no matrix yet" in words(client.ask("GET", "/candidates"))
        measure(page, "lamp", "elsewhere", **{found.node_id: (7.0, 0.5)})
        assert effects(client.ask("GET", "/candidates"))[0] == "+7.00 lamp"


def test_a_response_that_was_measured_in_no_matrix_says_so(tables, transcript, reviewing):
    with reviewing(tables, transcript()) as page:
        node = transcript().responses()[0][1]
        answer = Client(page).let_in().ask("GET", f"/response?node={node}")
        assert answer.status == 200
        assert "Drink rooibos tea, as in every evening" in words(answer)
        assert "It was measured in no matrix yet" in words(answer)
