"""The threshold on the page of candidates: what waits below it is not listed."""

import re

import pytest

from mindscore.review.queue import id_of

from .client import Client


@pytest.fixture
def client(filled, reviewing):
    with reviewing(filled) as page:
        yield Client(page).let_in()


def shown(answer):
    """What a page says of each state, and the divergences that it lists."""
    states = re.findall(r"(\w+)\s*<span class=\"number\">(\d+)</span></a>", answer.text)
    listed = re.findall(
        r"<span class=\"number\">([\d.]+)</span>\s*<span class=\"name\">", answer.text
    )
    return {state: int(count) for state, count in states}, [float(it) for it in listed]


def test_what_waits_below_the_threshold_is_not_listed(client):
    every = shown(client.ask("GET", "/candidates"))[1]
    assert len(every) == 5
    for threshold in (0, every[3], every[1] + 0.1, every[0] + 1):
        states, listed = shown(client.ask("GET", f"/candidates?threshold={threshold}"))
        above = [it for it in every if it >= threshold]
        assert states["waiting"] == len(above)
        assert listed == above


@pytest.mark.parametrize("nonsense", ["", "x", "-1", "nan", "inf", "1e999"])
def test_a_threshold_that_is_none_hides_nothing(nonsense, client):
    assert len(shown(client.ask("GET", f"/candidates?threshold={nonsense}"))[1]) == 5


def test_a_decision_keeps_the_threshold_and_leads_to_the_next_above_it(client):
    _, second, third, *_ = client.page.queue()
    threshold = str(second.candidate.divergence)
    form = client.decision(threshold=threshold)
    answer = client.ask("POST", "/decide", form)
    assert answer.status == 303
    to = answer.headers["Location"]
    assert f"at={id_of(second.name)}" in to
    assert f"threshold={threshold}" in to
    answer = client.ask("GET", to)
    assert answer.text.count(f'name="threshold" value="{threshold}"') == 2
    assert (
        f"threshold={threshold}" in re.search(r'href="([^"]*show=accepted[^"]*)"', answer.text)[1]
    )
    form = client.decision(threshold=threshold, id=id_of(second.name))
    answer = client.ask("POST", "/decide", form)
    assert "at=" not in answer.headers["Location"]
    assert id_of(third.name) not in answer.headers["Location"]
    answer = client.ask("GET", answer.headers["Location"])
    assert "None that waits reaches the threshold." in answer.text
    assert "2 accepted" in answer.text


def test_what_is_decided_is_listed_whatever_the_threshold(client):
    client.ask("POST", "/decide", client.decision(choice="rejected"))
    states, listed = shown(client.ask("GET", "/candidates?show=rejected&threshold=1000"))
    assert states == {"waiting": 0, "accepted": 0, "rejected": 1, "trained": 0}
    assert len(listed) == 1


# -- in a browser --------------------------------------------------------------------------------


def _slide(tab, nats):
    tab.get_by_label("Threshold, to move").evaluate(
        """(slider, nats) => {
          slider.focus();
          slider.value = nats;
          slider.dispatchEvent(new Event("input", {bubbles: true}));
        }""",
        str(nats),
    )


def _above(tab, count):
    tab.get_by_role("status").filter(has_text=f"{count} of 5 that wait reach it").wait_for()


def test_list_and_counts_follow_the_slider_at_once(filled, reviewing, opened):
    with reviewing(filled) as page, opened(f"{page.address}") as tab:
        tab.goto(f"{page.url}/candidates")
        tab.evaluate("window.here = true")
        nats = [it.candidate.divergence for it in page.queue()]
        links = tab.locator("nav.others a")
        for count in (2, 4, 1, 5):
            _slide(tab, int(100 * nats[count - 1]) / 100)
            _above(tab, count)
            assert links.count() == count
            assert f"Waiting {count}" in " ".join(tab.inner_text("#filters").split())
            assert f"0 of {count} decided" in " ".join(tab.inner_text("#decided").split())
            assert ("1 of 1" in tab.inner_text("#steps")) == (count == 1)
        _slide(tab, nats[0] + 0.004)
        tab.get_by_label("Threshold in nats").fill("1000")
        _above(tab, 0)
        assert "None that waits reaches the threshold" in tab.inner_text("#shown")
        assert tab.locator("article").count() == 0
        tab.get_by_label("Threshold in nats").fill("0")
        _above(tab, 5)
        assert tab.locator("article").count() == 1
        assert tab.evaluate("window.here")
        # The address has it, for a reload and for what is decided.
        _slide(tab, int(nats[1]))
        _above(tab, 2)
        tab.reload()
        _above(tab, 2)
        tab.keyboard.press("r")
        tab.get_by_text("1 of 2 decided").wait_for()
        assert f"threshold={int(nats[1])}" in tab.url


def test_what_is_being_typed_stays_while_the_threshold_moves(filled, reviewing, opened):
    with reviewing(filled) as page, opened(page.address) as tab:
        tab.goto(f"{page.url}/candidates")
        tab.keyboard.press("e")
        tab.locator("textarea:focus").wait_for()
        tab.keyboard.type("a rare jar ")
        text = tab.locator("textarea").input_value()
        _slide(tab, 30)
        _above(tab, 3)
        _slide(tab, 0)
        _above(tab, 5)
        tab.get_by_label("Threshold in nats").fill("1000")
        _above(tab, 0)
        assert tab.locator("textarea").input_value() == text
        assert tab.locator("[data-edit][open]").count() == 1


def test_without_javascript_a_form_sets_the_threshold(filled, reviewing, opened):
    with reviewing(filled) as page, opened(page.address, java_script_enabled=False) as tab:
        tab.goto(f"{page.url}/candidates")
        assert not tab.get_by_label("Threshold, to move").is_visible()
        tab.get_by_label("Threshold in nats").fill("30")
        tab.get_by_role("button", name="Show").click()
        tab.wait_for_url("**threshold=30**")
        assert tab.locator("nav.others a").count() == 3
        tab.get_by_role("button", name=re.compile("^Reject")).click()
        tab.get_by_text("1 of 3 decided").wait_for()


def test_a_server_that_is_gone_is_told_beside_the_slider(filled, reviewing, opened):
    with reviewing(filled) as page, opened(page.address) as tab:
        tab.goto(f"{page.url}/candidates")
        tab.route("**/candidates?*", lambda route: route.abort())
        _slide(tab, 30)
        tab.get_by_role("status").filter(has_text="could not be brought").wait_for()
        tab.unroute("**/candidates?*")
        _slide(tab, 0)
        _above(tab, 5)
        tab.complaints.clear()
