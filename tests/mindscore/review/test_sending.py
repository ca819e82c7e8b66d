"""What was accepted is sent from the page: it is said what and where to, and then asked."""

import pytest

from .client import Client


@pytest.fixture
def sink(filled, tmp_path, monkeypatch):
    """Settings with a trainer that is a folder."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    filled["train"] = {"sink": "jsonl"}
    return tmp_path / "data" / "mindscore" / "training"


def test_keys_lead_to_what_would_be_sent_and_send_it(filled, sink, reviewing, opened):
    with reviewing(filled) as page, opened(page.address) as tab:
        tab.goto(f"{page.url}/candidates")
        assert tab.get_by_role("link", name="Send").count() == 0
        tab.keyboard.press("a")
        tab.get_by_text("1 of 5 decided").wait_for()
        tab.keyboard.press("s")
        tab.get_by_role("heading", name="Send to a trainer").wait_for()
        said = tab.inner_text("main")
        assert str(sink) in said
        assert "Left out:\n\n4 responses not decided on yet" in said
        assert "yes, send" in said
        assert not sink.exists()
        tab.keyboard.press("y")
        tab.get_by_role("status").get_by_text("jsonl took 1 response").wait_for()
        assert "There is nothing to send." in tab.inner_text("main")
        assert "yes, send" not in tab.inner_text("main")
        assert "took 1 response (" in tab.inner_text("main")
        assert "1 response the trainer has already" in tab.inner_text("main")
        [file] = sink.glob("*.jsonl")
        assert len(file.read_text().splitlines()) == 1
        tab.goto(f"{page.url}/candidates")
        assert "Trained 1" in " ".join(tab.inner_text("#filters").split())


def test_a_key_that_asks_for_it_does_not_send_however_often_it_is_pressed(
    filled, sink, reviewing, opened
):
    with reviewing(filled) as page, opened(page.address) as tab:
        tab.goto(f"{page.url}/candidates")
        tab.keyboard.press("a")
        tab.get_by_text("1 of 5 decided").wait_for()
        for key in ("s", "Enter"):
            tab.goto(f"{page.url}/candidates")
            tab.get_by_role("link", name="Send").focus()
            for _ in range(8):
                tab.keyboard.press(key)
            tab.get_by_role("heading", name="Send to a trainer").wait_for()
            for _ in range(8):
                tab.keyboard.press(key)
        # Whatever they began has ended.
        tab.goto(f"{page.url}/send?model=toy")
        assert "Send 1 response" in tab.inner_text("main")
        assert not sink.exists()


def test_nothing_is_sent_twice(filled, sink, reviewing):
    with reviewing(filled) as page:
        client = Client(page).let_in()
        client.ask("POST", "/decide", client.decision())
        assert client.ask("POST", "/send", {"model": "toy"}).status == 303
        again = client.ask("POST", "/send", {"model": "toy"})
        assert again.status == 409
        assert "There is nothing to send" in again.text
        assert len(list(sink.glob("*.jsonl"))) == 1


def test_nothing_is_sent_for_another_page(filled, sink, reviewing):
    with reviewing(filled) as page:
        client = Client(page).let_in()
        client.ask("POST", "/decide", client.decision())
        form = {"model": "toy"}
        assert client.ask("POST", "/send", form, Origin="http://elsewhere").status == 403
        assert client.ask("POST", "/send", form, Cookie=None).status == 403
        assert not sink.exists()


def test_where_there_is_no_trainer_the_page_says_so(filled, reviewing):
    with reviewing(filled) as page:
        answer = Client(page).let_in().ask("GET", "/send?model=toy")
        assert answer.status == 409
        assert "There is no trainer:" in answer.text
