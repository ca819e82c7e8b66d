"""Decisions, by mouse and by keyboard, in a real browser, seen in the store."""

import re
from dataclasses import replace
from itertools import product

import pytest

from mindscore.scorers.toy import ToyScorer
from mindscore.store import Store

END = "<|im_end|>"


def test_candidates_are_accepted_rejected_and_taken_back_by_mouse(filled, reviewing, opened):
    with reviewing(filled) as page, opened(page.address) as tab:
        tab.get_by_role("link", name="Candidates", exact=True).click()
        _wait_for(tab, "0 of 5 decided")
        first = _heading(tab)
        tab.get_by_role("button", name=re.compile("^Accept what it said")).click()
        tab.wait_for_url("**done=**")
        assert page.decisions() == [("accepted", "response"), None, None, None, None]
        assert "1 of 5 decided" in tab.inner_text("main")
        second = _heading(tab)
        assert second != first
        tab.get_by_role("button", name=re.compile("^Accept what the model")).click()
        _wait_for(tab, "2 of 5 decided")
        tab.get_by_role("button", name=re.compile("^Reject")).click()
        _wait_for(tab, "3 of 5 decided")
        assert page.decisions() == [
            ("accepted", "response"), ("accepted", "alternate"), ("rejected", "response"), None,
            None,
        ]  # fmt: skip
        ids = [it.answer_ids for it in page.queue()]
        alternate = page.run(ToyScorer().tokenize("Drink what you like." + END))
        assert ids[1] == tuple(alternate)
        tab.get_by_role("button", name=re.compile("^Undo")).click()
        _wait_for(tab, "2 of 5 decided")
        assert page.decisions()[2] is None
        tab.get_by_role("link", name=re.compile("^accepted", re.IGNORECASE)).click()
        _wait_for(tab, "Take this decision back")
        assert _heading(tab) == first
        assert "the answer to train on is what it said" in tab.inner_text("article")
        tab.get_by_role("button", name=re.compile("^Take this decision back")).click()
        _wait_for(tab, "1 of 5 decided")
        assert page.decisions()[0] is None


def test_an_edited_answer_ends_as_the_response_does(filled, reviewing, opened):
    with reviewing(filled) as page, opened(f"{page.address}") as tab:
        tab.goto(f"{page.url}/candidates")
        tab.get_by_text("Edit the answer").click()
        said = page.queue()[0].candidate.response_text
        box = tab.get_by_label("The answer to train on")
        assert box.input_value() == said
        text = "Rooibos tea,\nwhat else?\n\n  ü 🍵 <b>"
        box.fill(text)
        tab.get_by_role("button", name="Accept this text").click()
        tab.wait_for_url("**done=**")
        kept = page.queue()[0]
        assert kept.review.text == text
        assert kept.answer_ids == tuple(page.run(ToyScorer().tokenize(text + END)))
        tab.get_by_role("link", name=re.compile("^accepted", re.IGNORECASE)).click()
        shown = tab.get_by_role("heading", name="Answer to train on").locator("..")
        assert text in shown.locator("p").evaluate("it => it.textContent")


def test_the_keyboard_does_it_all(filled, reviewing, opened):
    with reviewing(filled) as page, opened(page.address) as tab:
        tab.goto(f"{page.url}/candidates")
        first = _heading(tab)

        def press(key, until):
            tab.keyboard.press(key)
            _wait_for(tab, until)

        press("j", "2 of 5")
        second = _heading(tab)
        tab.locator("h2#candidate:focus").wait_for()
        press("k", "1 of 5")
        assert _heading(tab) == first
        press("a", "1 of 5 decided")
        # The focus is on the next that waits.
        tab.locator("h2#candidate:focus").wait_for()
        assert _heading(tab) == second
        press("r", "2 of 5 decided")
        assert page.decisions() == [("accepted", "response"), ("rejected", "response"), *[None] * 3]
        press("u", "1 of 5 decided")
        assert page.decisions()[1] is None
        assert _heading(tab) == second
        tab.keyboard.press("e")
        tab.locator("textarea:focus").wait_for()
        tab.keyboard.press("Control+a")
        # In a text, letters are letters.
        tab.keyboard.type("a rare jar")
        tab.keyboard.press("Escape")
        assert tab.locator("textarea:focus").count() == 0
        tab.get_by_role("button", name="Accept this text").press("Enter")
        _wait_for(tab, "2 of 5 decided")
        assert page.queue()[1].review.text == "a rare jar"
        asked = _requests(tab)
        tab.get_by_label("Keyboard shortcuts").uncheck()
        for key in "arujk":
            tab.keyboard.press(key)
        tab.reload()
        assert not tab.get_by_label("Keyboard shortcuts").is_checked()
        assert {method for method, _ in asked} == {"GET"}
        assert sum(it is not None for it in page.decisions()) == 2


def _type(tab, text):
    tab.keyboard.press("e")
    tab.locator("textarea:focus").wait_for()
    tab.keyboard.press("Control+a")
    tab.keyboard.type(text)
    tab.keyboard.press("Escape")


def test_a_changed_text_is_what_is_accepted_by_key(filled, reviewing, opened):
    with reviewing(filled) as page, opened(page.address) as tab:
        tab.goto(f"{page.url}/candidates")
        _type(tab, "a rare jar")
        tab.keyboard.press("a")
        _wait_for(tab, "1 of 5 decided")
        assert page.decisions()[0] == ("accepted", "edited")
        assert page.queue()[0].review.text == "a rare jar"
        # One that cannot be accepted is still what was typed.
        _type(tab, "the end<|im_end|>")
        tab.keyboard.press("a")
        _wait_for(tab, "holds the end of a turn")
        tab.complaints.clear()
        tab.keyboard.press("r")
        tab.get_by_role("alert").get_by_text("The text is changed").wait_for()
        assert page.decisions()[1] is None


def test_no_key_loses_a_changed_text(filled, reviewing, opened):
    with reviewing(filled) as page, opened(page.address) as tab:
        tab.goto(f"{page.url}/candidates")
        tab.keyboard.press("j")
        _wait_for(tab, "2 of 5")
        tab.keyboard.press("a")
        _wait_for(tab, "1 of 5 decided")
        shown = {it.get_attribute("data-key") for it in tab.locator("[data-key]").all()}
        assert shown == set("arujks")
        asked, heading, said = _requests(tab), _heading(tab), tab.locator("textarea").input_value()
        refused = tab.get_by_role("alert").get_by_text("accept it (a), or put it back (Esc)")
        assert refused.count() == 0
        _type(tab, "something else")
        for key in "ruj":
            tab.keyboard.press(key)
            refused.wait_for()
        tab.keyboard.press("k")
        assert tab.locator("textarea").input_value() == "something else"
        tab.keyboard.press("Escape")
        assert tab.locator("textarea").input_value() == said
        assert refused.count() == 0
        assert (asked, _heading(tab)) == ([], heading)
        tab.keyboard.press("r")
        _wait_for(tab, "2 of 5 decided")
        assert page.decisions()[2] == ("rejected", "response")


def test_while_a_decision_is_on_its_way_no_key_does_anything(filled, reviewing, opened):
    with reviewing(filled) as page, opened(page.address) as tab:
        tab.goto(f"{page.url}/candidates")
        # Without an answer, as far as the page knows.
        tab.route("**/decide", lambda route: route.fulfill(status=204))
        with tab.expect_request("**/decide"):
            tab.keyboard.press("a")
        asked = _requests(tab)
        for key in "rajke":
            tab.keyboard.press(key)
        assert tab.locator("textarea:focus").count() == 0
        assert asked == []
        tab.unroute("**/decide")
        tab.keyboard.press("Escape")
        tab.keyboard.press("a")
        _wait_for(tab, "1 of 5 decided")
        assert page.decisions() == [("accepted", "response"), *[None] * 4]
        # A key that is held down decides once.
        tab.keyboard.down("r")
        _wait_for(tab, "2 of 5 decided")
        tab.keyboard.down("r")
        tab.keyboard.down("r")
        tab.keyboard.up("r")
        assert sum(it is not None for it in page.decisions()) == 2


def test_what_was_decided_is_told_with_what_comes_next(filled, reviewing, opened):
    with reviewing(filled) as page, opened(page.address) as tab:
        tab.goto(f"{page.url}/candidates")
        assert tab.locator("[aria-describedby]").count() == 0
        for at, (key, told) in enumerate([("a", "Accepted: “"), *[("r", "Rejected: “")] * 4]):
            tab.keyboard.press(key)
            _wait_for(tab, f"{at + 1} of 5 decided")
            focused = tab.locator(":focus")
            focused.wait_for()
            described = tab.locator(f"#{focused.get_attribute('aria-describedby')}")
            assert described.inner_text().startswith(told)


def test_all_of_it_works_without_javascript(filled, reviewing, opened):
    with (
        reviewing(filled) as page,
        opened(page.address, java_script_enabled=False) as tab,
    ):
        tab.goto(f"{page.url}/candidates")
        for decided in range(1, 5):
            tab.get_by_role("button", name=re.compile("^Accept what it said")).click()
            _wait_for(tab, f"{decided} of 5 decided")
        tab.get_by_role("button", name=re.compile("^Reject")).click()
        _wait_for(tab, "All candidates are decided")
        assert page.decisions() == [*[("accepted", "response")] * 4, ("rejected", "response")]
        tab.get_by_role("button", name=re.compile("^Undo")).click()
        _wait_for(tab, "4 of 5 decided")
        assert page.decisions()[4] is None
        for path in ("", "memories?sort=key", "matrix"):
            tab.goto(f"{page.url}/{path}")
            assert tab.get_by_role("heading", level=1).count() == 1


def test_two_browsers_share_one_store(filled, reviewing, opened):
    with (
        reviewing(filled) as page,
        reviewing(filled) as other,
        opened(page.address) as tab,
        opened(other.address) as late,
    ):
        tab.goto(f"{page.url}/candidates")
        late.goto(f"{other.url}/candidates")
        tab.get_by_role("button", name=re.compile("^Accept what it said")).click()
        tab.wait_for_url("**done=**")
        late.get_by_role("button", name=re.compile("^Reject")).click()
        late.wait_for_url("**/decide")
        assert "accepted meanwhile" in late.get_by_role("alert").inner_text()
        assert page.decisions()[0] == ("accepted", "response")
        late.complaints.clear()
        late.goto(f"{other.url}/candidates")
        assert "1 of 5 decided" in late.inner_text("main")


def test_what_is_trained_is_shown_and_not_decided_again(filled, reviewing, opened):
    with reviewing(filled) as page, opened(page.address) as tab:
        tab.goto(f"{page.url}/candidates")
        found = page.queue()[0].candidate
        sent = [(found.timestamp_ns, found.continuation_ids)]
        page.run(Store(page.settings.store).mark_trained(sent, "job-1", "jsonl"))
        tab.get_by_role("button", name=re.compile("^Reject")).click()
        tab.wait_for_url("**/decide")
        assert "trained on already" in tab.get_by_role("alert").inner_text()
        tab.complaints.clear()
        tab.goto(f"{page.url}/candidates?show=trained")
        assert "jsonl" in tab.inner_text("article")
        assert tab.locator("article button").count() == 0
        assert page.decisions()[0] is None


@pytest.mark.parametrize("cut", [True, False])
def test_an_alternate_that_was_cut_off_cannot_be_chosen(cut, filled, reviewing, opened):
    with reviewing(filled) as page, opened(page.address) as tab:
        found = page.queue()[0].candidate
        ids = found.alternate_ids
        page.record(replace(found, alternate_ids=ids[:-1] if cut else ids))
        tab.goto(f"{page.url}/candidates")
        choice = tab.get_by_role("button", name=re.compile("^Accept what the model"))
        assert choice.count() == (0 if cut else 1)
        assert ("was cut off" in tab.inner_text("article")) is cut


def test_of_several_models_one_is_looked_at(filled, reviewing, opened):
    with reviewing(filled) as page, opened(page.address) as tab:
        page.record(page.queue()[1].candidate, "other & co")
        tab.goto(f"{page.url}/candidates")
        tab.get_by_label("Model").select_option("other & co")
        tab.get_by_role("button", name="Show").click()
        tab.wait_for_url("**model=other**")
        assert "0 of 1 decided" in tab.inner_text("main")
        # Its tokens may be others than those that the scorer here makes of a text.
        tab.get_by_text("Edit the answer").click()
        tab.get_by_label("The answer to train on").fill("Tea & biscuits")
        tab.get_by_role("button", name="Accept this text").click()
        tab.wait_for_url("**/decide")
        assert "'other & co'" in tab.get_by_role("alert").inner_text()
        assert tab.get_by_label("The answer to train on").input_value() == "Tea & biscuits"
        tab.complaints.clear()
        tab.get_by_role("button", name=re.compile("^Accept what it said")).click()
        _wait_for(tab, "1 of 1 decided")
        decided = {it.model: it.review.decision for it in page.queue() if it.review}
        assert decided == {"other & co": "accepted"}


def test_no_key_is_taken_with_a_modifier_repeated_or_in_a_field(filled, reviewing, opened):
    with reviewing(filled) as page, opened(page.address) as tab:
        tab.goto(f"{page.url}/candidates")
        asked, heading = _requests(tab), _heading(tab)
        fired = """key => document.body.dispatchEvent(new KeyboardEvent("keydown", {
          key: key.at(-1), bubbles: true, cancelable: true, ...{
            "^": {ctrlKey: true}, "!": {altKey: true}, "@": {metaKey: true}, "+": {shiftKey: true},
            "*": {repeat: true}, "~": {isComposing: true},
          }[key[0]],
        }))"""
        for mark, key in product("^!@+*~", "arujkes"):
            assert tab.evaluate(fired, mark + key), f"{mark}{key} was taken"
        tab.get_by_label("Threshold in nats").focus()
        for key in "arujks":
            tab.keyboard.press(key)
        assert tab.locator("[data-edit][open]").count() == 0
        assert [it for it in asked if "/assets/" not in it[1]] == []
        assert _heading(tab) == heading
        # Beside a slider, letters are shortcuts.
        tab.get_by_label("Threshold, to move").focus()
        tab.keyboard.press("j")
        _wait_for(tab, "2 of 5")
        names = tab.locator("[aria-keyshortcuts]").evaluate_all(
            "its => its.map(it => [it.getAttribute('aria-keyshortcuts'), it.textContent.trim()])"
        )
        assert {key for key, _ in names} >= set("jkare")
        tab.get_by_role("button", name="Reject", exact=True).wait_for()


def _requests(tab):
    """What is asked for from now on: methods and addresses."""
    asked = []
    tab.on("request", lambda it: asked.append((it.method, it.url)))
    return asked


def _wait_for(tab, text):
    tab.get_by_text(text).first.wait_for()
    tab.wait_for_load_state("load")


def _heading(tab):
    return tab.locator("h2#candidate").inner_text()
