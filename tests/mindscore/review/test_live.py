"""What goes on is told while it does: a button, events, the end, without a reload."""

import asyncio
import re

import pytest

from mindhooks import MemoryScore
from mindscore.store import History

from .client import Client

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


# -- stopping ------------------------------------------------------------------------------------


def test_a_run_is_stopped_and_what_it_found_is_kept(gated, tables, transcript, reviewing, opened):
    with (
        reviewing(tables, transcript()) as page,
        opened(page.address) as tab,
        opened(page.address) as other,
    ):
        stop = _button(tab, "Stop")
        assert not stop.is_visible()
        _button(tab, "Score the full matrix").click()
        _told(tab, "scoring: baseline").first.wait_for()
        stop.focus()
        tab.keyboard.press("Enter")
        for watcher in (tab, other):
            _told(watcher, "Stopping memory-scoring: what was found until now is kept.").wait_for()
        # A call that has begun may end only once the server answers.
        gated.open()
        for watcher in (tab, other):
            watcher.locator("[data-state=ended]").wait_for()
            _told(watcher, "stopped: 0 of 4 memories scored").wait_for()
            assert watcher.locator(".notice.bad:visible").count() == 0
            assert not _button(watcher, "Stop").is_visible()
        # The focus is not lost with the button.
        assert tab.evaluate("document.activeElement.textContent") == "Score memories that are due"
        [kept] = page.run(History(page.settings.store).runs())
        assert (kept.command, kept.error) == ("score-full", "cancelled")
        _button(tab, "Score the full matrix").click()
        _told(tab, "4 of 4 memories scored").wait_for()


def test_without_javascript_a_run_is_stopped_by_a_form(
    gated, tables, transcript, reviewing, opened
):
    with (
        reviewing(tables, transcript()) as page,
        opened(page.address, java_script_enabled=False) as tab,
    ):
        assert _button(tab, "Stop").count() == 0 or not _button(tab, "Stop").is_visible()
        _button(tab, "Find candidates").click()
        tab.get_by_text("A run is under way").wait_for()
        _button(tab, "Stop").click()
        _told(tab, "Stopping finetune-scoring").wait_for()
        gated.open()
        page.run(page.runs.quiet())
        tab.reload()
        assert "stopped: 0 candidates" in tab.inner_text(LIVE)
        assert not _button(tab, "Stop").is_visible()


def test_where_nothing_runs_stop_does_nothing(tables, transcript, reviewing):
    with reviewing(tables, transcript()) as page:
        client = Client(page).let_in()
        answer = client.ask("POST", "/stop", {})
        assert (answer.status, page.runs.live.last) == (303, 0)
        assert client.ask("POST", "/stop", {}, Origin="http://elsewhere").status == 403


# -- many events ---------------------------------------------------------------------------------

MANY = 10_000


def _counting_layouts(tab):
    """Return a function that says how often the page has been laid out since."""
    session = tab.context.new_cdp_session(tab)
    session.send("Performance.enable")

    def layouts():
        metrics = session.send("Performance.getMetrics")["metrics"]
        return next(it["value"] for it in metrics if it["name"] == "LayoutCount")

    return layouts


def test_a_page_stays_responsive_while_thousands_of_events_arrive(
    tables, transcript, reviewing, opened
):
    with reviewing(tables, transcript()) as page, opened(page.address) as tab:
        live = page.runs.live

        async def begin():
            live.tell("dispatched", {"said": "score: begun.", "first": True, "restarted": False})

        async def flood():
            for number in range(MANY):
                live.hear(MemoryScore(f"k{number}", 1.0, "full", ()))
                if number % 100 == 0:
                    # As they come of a run: with its activity, and not all in one step of the loop.
                    live.changed()
                    await asyncio.sleep(0)

        page.run(begin())
        tab.locator("[data-state=running]").wait_for()
        tab.evaluate(
            """() => {
              window.most = 0;
              new MutationObserver(() => {
                window.most = Math.max(window.most, document.querySelectorAll("li").length);
              }).observe(document, { childList: true, subtree: true });
            }"""
        )
        layouts = _counting_layouts(tab)
        page.run(flood())
        tab.get_by_text(f"{MANY - 200:,} earlier ones are not shown.").wait_for()
        assert tab.locator(".found li").count() == 200
        assert tab.locator(".found li").last.inner_text().split() == [
            "1.00",
            "nats",
            f"k{MANY - 1}",
        ]
        assert tab.evaluate("window.most") < 300
        # Laid out once for each picture, not once for each event: time itself is the machine's.
        assert 0 < layouts() < MANY / 10
        # One who comes later gets the latest, and not all.
        assert len(live.kept("score")) <= 1_000
        tab.reload()
        tab.get_by_text(f"{MANY - 200:,} earlier ones are not shown.").wait_for()
        assert tab.locator(".found li").count() == 200
