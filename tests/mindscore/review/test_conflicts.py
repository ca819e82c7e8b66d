"""Two windows, a candidate found again, a browser that goes on: nothing is lost, nothing twice."""

import html
import json
import socket
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from urllib.parse import urlencode

import pytest

from mindscore.measure.prompts import response_hash
from mindscore.review.queue import id_of
from mindscore.store import Store

from .client import Client
from .conftest import PATIENCE_S

TEXT = "Tea <b>& more"


@pytest.fixture
def client(filled, reviewing):
    """A client that has been let in."""
    with reviewing(filled) as page:
        yield Client(page).let_in()


def test_a_trainer_is_named_only_while_something_is_accepted(client):
    for _ in client.page.queue():
        waiting = client.decision(id=client.field("id"), choice="rejected")
        assert client.ask("POST", "/decide", waiting).status == 303
    page = client.ask("GET", "/candidates").text
    assert "All candidates are decided" in page
    assert "mindscore train" not in page


def _together(client, path, *forms):
    with ThreadPoolExecutor(len(forms)) as pool:
        return sorted(pool.map(lambda form: client.ask("POST", path, form).status, forms))


def _taking_back(client):
    """The form that the page shows for the last decision."""
    path = f"/candidates?done={client.decision()['id']}"
    return client.decision(decided_at=client.field("decided_at", path))


def test_of_decisions_at_once_one_is_kept(client, tmp_path):
    choices = [client.decision(choice=it) for it in ("response", "rejected") * 4]
    assert _together(client, "/decide", *choices) == [303, *[409] * 7]
    with closing(sqlite3.connect(tmp_path / "store.sqlite3")) as store:
        assert store.execute("SELECT count(*) FROM reviews").fetchone() == (1,)


def test_a_decision_is_taken_back_once_and_no_later_one(client):
    client.ask("POST", "/decide", client.decision())
    old = _taking_back(client)
    assert _together(client, "/undo", *[old] * 4) == [303, *[409] * 3]
    client.ask("POST", "/decide", client.decision(choice="rejected"))
    answer = client.ask("POST", "/undo", old)
    assert answer.status == 409
    assert "look again" in answer.text
    assert client.page.decisions()[0] == ("rejected", "response")
    assert client.ask("POST", "/undo", _taking_back(client)).status == 303
    assert client.page.decisions()[0] is None


def test_what_was_sent_meanwhile_is_not_taken_back(client):
    client.ask("POST", "/decide", client.decision())
    form, page = _taking_back(client), client.page
    found = page.queue()[0].candidate
    sent = [(found.timestamp_ns, found.continuation_ids)]
    page.run(Store(page.settings.store).mark_trained(sent, "job", "http"))
    answer = client.ask("POST", "/undo", form)
    assert answer.status == 409
    assert "trained on already" in answer.text
    assert page.decisions()[0] == ("accepted", "response")


def test_the_alternate_that_is_accepted_is_the_one_that_was_shown(client):
    found = client.page.queue()[0].candidate
    shown = client.field("alternate")
    assert shown == response_hash(found.alternate_ids)
    other = (7, *found.alternate_ids)
    client.page.record(replace(found, alternate_text="Anything.", alternate_ids=other))
    form = client.decision(choice="alternate", alternate=shown)
    answer = client.ask("POST", "/decide", form)
    assert answer.status == 409
    assert "found again with another answer" in answer.text
    assert client.page.decisions()[0] is None
    form = client.decision(choice="alternate", alternate=client.field("alternate"))
    assert client.ask("POST", "/decide", form).status == 303
    assert client.page.queue()[0].answer_ids == other


def _lost(client, form, status):
    answer = client.ask("POST", "/decide", form)
    assert answer.status == status
    assert f">\n{html.escape(TEXT)}</textarea>" in answer.text
    assert 'role="alert"' in answer.text
    return answer.text


def test_a_text_is_not_lost_whatever_happened_to_its_candidate(client, tmp_path):
    form = client.decision(choice="edited", text=TEXT)
    client.ask("POST", "/decide", client.decision(choice="rejected"))
    assert "rejected meanwhile" in _lost(client, form, 409)
    assert "not kept any more" in _lost(client, {**form, "id": "1-2"}, 404)
    (tmp_path / "store.sqlite3").write_bytes(b"this is no database" * 1000)
    assert "not a database" in _lost(client, form, 500)


def test_a_text_is_not_lost_where_the_scorer_cannot_be_built(filled, reviewing):
    filled["server"]["scorer"] = "nobody"
    with reviewing(filled) as page:
        client = Client(page).let_in()
        said = _lost(client, client.decision(choice="edited", text=TEXT), 500)
        assert "nobody" in said
        assert page.decisions()[0] is None


@pytest.mark.parametrize("path", ["/decide", "/undo"])
def test_what_was_decided_is_kept_though_the_browser_goes_on(path, client, tmp_path):
    form, expected = client.decision(), ("accepted", "response")
    if path == "/undo":
        client.ask("POST", "/decide", form)
        form, expected = _taking_back(client), None
    body, page = urlencode(form).encode(), client.page
    head = [
        f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{page.port}", f"Origin: {page.url}",
        f"Cookie: {client.cookie.partition(';')[0]}", f"Content-Length: {len(body)}",
        "Content-Type: application/x-www-form-urlencoded", "", "",
    ]  # fmt: skip
    with closing(sqlite3.connect(tmp_path / "store.sqlite3", isolation_level=None)) as store:
        # Nobody can look into the store until the browser is known to have gone.
        store.execute("BEGIN EXCLUSIVE")
        with socket.create_connection(("127.0.0.1", page.port)) as browser:
            browser.sendall("\r\n".join(head).encode() + body)
        for _ in range(3):
            assert client.ask("GET", "/assets/theme.css").status == 200
        store.execute("ROLLBACK")
    until = time.monotonic() + PATIENCE_S
    while page.decisions()[0] != expected and time.monotonic() < until:
        pass
    assert page.decisions()[0] == expected


def test_a_list_of_candidates_needs_none_of_their_prompts(client, tmp_path):
    first, second, *_ = client.page.queue()
    with closing(sqlite3.connect(tmp_path / "store.sqlite3")) as store:
        kept = "SELECT candidate FROM candidates WHERE timestamp_ns = ?"
        stamp = second.candidate.timestamp_ns
        candidate = json.loads(store.execute(kept, [stamp]).fetchone()[0])
        candidate["context_ids"] = "not read"
        change = "UPDATE candidates SET candidate = ? WHERE timestamp_ns = ?"
        store.execute(change, [json.dumps(candidate), stamp])
        store.commit()
    answer = client.ask("GET", "/candidates")
    assert answer.status == 200
    assert id_of(second.name) in answer.text
    asked = {"model": "toy", "id": id_of(first.name), "choice": "response"}
    assert client.ask("POST", "/decide", asked).status == 303
