"""What goes on is told while it does: a button, events, the end, without a reload."""

import re

import pytest

from mindscore.store import History

LIVE = "[data-live]"


def _told(tab, text):
    return tab.locator("[data-panel]").get_by_text(text)


def _button(tab, name):
    return tab.get_by_role("button", name=name)


@pytest.mark.parametrize(
    ("name", "end", "found"),
    [
        ("Score memories that are due", "4 of 4 memories scored", "54.86 nats tea"),
        ("Score the full matrix", "4 of 4 memories scored", "54.86 nats tea"),
        ("Find candidates", "5 candidates in 5 responses", "70.22 nats #1 Drink rooibos tea"),
    ],
)
def test_a_button_starts_a_run_that_is_watched_to_its_end(
    name, end, found, tables, transcript, reviewing, opened
):
    with reviewing(tables, transcript()) as page, opened(page.address) as tab:
        tab.evaluate("window.here = true")
        assert "No memory has been scored yet" in tab.inner_text("main")
        _button(tab, name).click()
        tab.locator("[data-state=ended]").wait_for()
        said = " ".join(tab.inner_text(LIVE).split())
        assert "-scoring started." in said
        assert end in said
        assert found in said
        assert re.search(r"\d+ calls, \d+ tokens sent, \d+ computed, \d+\.\d s", said)
        assert tab.evaluate("window.here")
        assert len(page.run(History(page.settings.store).runs())) == 1
        tab.get_by_role("link", name="Show it in the list").click()
        tab.get_by_role("row").nth(1).wait_for()
        if name == "Find candidates":
            assert len(page.queue()) == 5
            assert page.queue()[0].candidate.alternate_text is None


def test_alternates_are_generated_where_they_are_asked_for(tables, transcript, reviewing, opened):
    with reviewing(tables, transcript()) as page, opened(page.address) as tab:
        tab.get_by_label("Candidates with what the model would have said").check()
        _button(tab, "Find candidates").click()
        tab.locator("[data-state=ended]").wait_for()
        assert all(it.candidate.alternate_text is not None for it in page.queue())
        # Politely: not at once after what was said before.
        ended = tab.get_by_role("status").filter(has_text="Ended. 5 candidates in 5 responses")
        ended.wait_for(state="attached")


def test_a_run_under_way_is_seen_by_who_comes_later(gated, tables, transcript, reviewing, opened):
    with (
        reviewing(tables, transcript()) as page,
        opened(page.address) as tab,
        opened(page.address) as other,
    ):
        _button(tab, "Score the full matrix").click()
        for watcher in (tab, other):
            _told(watcher, "memory-scoring started.").wait_for()
            _told(watcher, "scoring: baseline").first.wait_for()
        _button(other, "Score memories").click()
        for watcher in (tab, other):
            _told(watcher, "score: memory-scoring is busy").wait_for()
        tab.reload()
        _told(tab, "score: memory-scoring is busy").wait_for()
        assert tab.locator("[data-state=running]").count() == 1
        gated.open()
        for watcher in (tab, other):
            watcher.locator("[data-state=ended]").wait_for()
            assert watcher.locator(LIVE).get_by_text("4 of 4 memories scored").count() == 1
            assert watcher.locator(".found li").count() == 4


def test_a_run_that_is_asked_for_again_begins_again(gated, tables, transcript, reviewing, opened):
    with reviewing(tables, transcript()) as page, opened(page.address) as tab:
        _button(tab, "Find candidates").click()
        _told(tab, "finetune-scoring started.").wait_for()
        _button(tab, "Find candidates").click()
        _told(tab, "finetune-scoring started again, in the place of").wait_for()
        gated.open()
        tab.locator("[data-state=ended]").wait_for()
        assert len(page.queue()) == tab.locator(".found li").count() == 5


def test_what_fails_is_told(score_server, gated, tables, transcript, reviewing, opened):
    score_server.always(score_server.reply({"error": "no such model <b>"}, 404))
    with reviewing(tables, transcript()) as page, opened(page.address) as tab:
        _button(tab, "Score memories").click()
        tab.locator("[data-state=ended]").wait_for()
        assert "no such model <b>" in tab.locator(".notice.bad.text").inner_text()
        tab.reload()
        tab.goto(f"{page.url}/runs")
        assert "no such model <b>" in tab.locator("tr .wrong").inner_text()


def test_a_command_that_no_plugin_takes_is_told(tables, transcript, reviewing, opened):
    tables["plugins"] = {"disabled": ["memory-scoring"]}
    with reviewing(tables, transcript()) as page, opened(page.address) as tab:
        _button(tab, "Score the full matrix").click()
        tab.locator("[data-state=ended]").wait_for()
        assert "no plugin took it: is its plugin disabled?" in tab.inner_text(LIVE)


def test_without_javascript_a_run_is_started_and_looked_at_again(
    gated, tables, transcript, reviewing, opened
):
    with (
        reviewing(tables, transcript()) as page,
        opened(page.address, java_script_enabled=False) as tab,
    ):
        _button(tab, "Score the full matrix").click()
        tab.locator(LIVE).get_by_text("memory-scoring started.").wait_for()
        gated.open()
        page.run(page.runs.quiet())
        tab.get_by_role("link", name="look again").click()
        tab.locator(LIVE).get_by_text("4 of 4 memories scored").wait_for()
        tab.goto(f"{page.url}/runs")
        assert tab.get_by_role("row").count() == 2


def test_without_a_transcript_there_are_no_buttons(filled, reviewing, opened):
    with reviewing(filled) as page, opened(page.address) as tab:
        assert "mindscore review TRANSCRIPT" in tab.inner_text("main")
        assert tab.locator("[data-run], form[method=post], [action='/run']").count() == 0
        names = tab.get_by_role("button").all_inner_texts()
        assert names == ["Find"]


def test_a_tab_that_nobody_looks_at_follows_again_when_it_is_seen(
    gated, tables, transcript, reviewing, opened
):
    hide = """(hidden) => {
        Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    with reviewing(tables, transcript()) as page, opened(page.address) as tab:
        _button(tab, "Score the full matrix").click()
        _told(tab, "memory-scoring started.").wait_for()
        with tab.expect_event("requestfailed", lambda it: "/events" in it.url):
            tab.evaluate(hide, True)
        gated.open()
        page.run(page.runs.quiet())
        assert tab.locator("[data-state=running]").count() == 1
        tab.evaluate(hide, False)
        tab.locator("[data-state=ended]").wait_for()
        # Nothing is told twice.
        assert _told(tab, "memory-scoring started.").count() == 1
        assert tab.locator(".found li").count() == 4


def test_a_run_that_cannot_be_started_is_told_where_it_is_seen(
    tables, transcript, reviewing, opened
):
    with reviewing(tables, transcript()) as page, opened(page.address) as tab:
        failed = tab.locator("[data-panel] .notice.bad", has_text="That could not be started.")
        tab.route("**/run", lambda route: route.fulfill(status=403))
        _button(tab, "Score the full matrix").click()
        failed.wait_for()
        tab.complaints.clear()
        tab.unroute("**/run")
        _button(tab, "Score the full matrix").click()
        tab.locator("[data-state=ended]").wait_for()
        assert not failed.is_visible()
