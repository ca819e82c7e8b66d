"""The archive's page as people meet it: by eye, by keyboard, without scripts, very long."""

import re
from dataclasses import replace

import pytest

from mindscore.measure.archive_advice import ArchiveAdvice
from mindscore.measure.summaries import Interval
from mindscore.report.archive_page import MOST_ROWS, MOST_TEXT, archive_page

from ..archives import made_archive
from ..opening import opened
from .test_browser import WIDTHS
from .test_hostile import PAYLOADS, does_nothing

SHOWN = "#archive tbody tr"
KEYS = "#archive tbody th > .key"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Writes an archive's page: ``written(archive)`` is its file."""

    def write(archive):
        file = tmp_path_factory.mktemp("archive") / "archive.html"
        file.write_text(archive_page(archive), encoding="utf-8")
        return file

    return write


@pytest.fixture(scope="module")
def long(written):
    """The page of 250 memories: three pages of a table."""
    return written(made_archive(250))


@pytest.mark.parametrize("width", WIDTHS)
def test_it_is_clean_and_open_to_everybody(browser, axe_source, screenshots, written, width):
    wide, high = WIDTHS[width]
    with opened(browser, written(made_archive(12)), wide, high) as it:
        it.script("for (const each of document.querySelectorAll('details')) each.open = true")
        for scheme in ("light", "dark"):
            it.page.emulate_media(color_scheme=scheme)
            picture = screenshots / f"report-archive-{width}-{scheme}.png"
            it.page.screenshot(path=picture, full_page=True)
            assert it.script("document.documentElement.scrollWidth") == wide
            assert it.serious(axe_source) == []
        assert it.page.is_visible(".sort[data-by=harmed]")
        assert it.wrong == []


def test_large_numbers_have_the_same_separators_everywhere():
    archive = made_archive(5, receipt=False)
    [first, *others] = archive.advice
    first = replace(first, evidence=replace(first.evidence, nats=12345.6))
    page = archive_page(replace(archive, advice=(first, *others)))
    shown = re.sub(r'data-nats="[^"]*"', "", page)
    assert "+12,345.6" in shown
    assert "12345" not in shown


def test_on_a_phone_a_large_interval_does_not_run_into_the_next_number(browser, written):
    archive = made_archive(5, receipt=False)
    [first, *others] = archive.advice
    wide = replace(first.evidence, responses=1, nats=12345.6, interval=Interval(12000.2, 12999.7))
    changed = replace(archive, advice=(replace(first, evidence=wide), *others))
    with opened(browser, written(changed), 360, 800) as it:
        assert it.script(
            "[...document.querySelectorAll('#archive td.number')]"
            ".every((it) => it.scrollWidth <= it.clientWidth)"
        )


def test_without_evidence_it_says_so(browser, written):
    nothing = ArchiveAdvice("", "full", "mine", 0, 0, 0, 0.0, 0.0, (), ("score something first",))
    with opened(browser, written(nothing)) as it:
        assert "score something first" in it.page.inner_text("main")
        assert it.page.locator("#archive, .group").count() == 0
        assert it.wrong == []


def numbers(it):
    """The numbers in the keys that are shown."""
    return [int(key.rpartition(" ")[2]) for key in it.texts(KEYS)]


def test_it_is_sorted_searched_and_grouped(browser, long):
    with opened(browser, long) as it:
        assert it.page.text_content("#shown") == "250 memories: 1 to 100"
        values = [float(each) for each in it.script(
            f"[...document.querySelectorAll('{SHOWN}')].map((tr) => tr.dataset.nats)"
        )]  # fmt: skip
        assert values == sorted(values, reverse=True)
        it.page.click(".sort[data-by=key]")
        assert numbers(it) == list(range(100))
        it.page.click(".sort[data-by=key]")
        assert numbers(it) == list(range(249, 149, -1))
        assert it.texts("th[aria-sort=descending]") == ["Memory"]
        it.page.fill("#find", "TEA 24")
        assert numbers(it) == [249, 248, 247, 246, 245, 244, 243, 242, 241, 240, 24]
        assert it.page.text_content("#shown") == "11 of 250 memories"
        it.page.click(".group[data-group=harmful]")
        assert numbers(it) == [245, 240]
        it.page.click(".group[data-group=harmful]")
        it.page.fill("#find", "nobody said that")
        assert numbers(it) == []
        assert it.page.is_visible("#none")
        assert it.wrong == []


def test_what_never_helped_comes_last_in_either_order(browser, written):
    with opened(browser, written(made_archive(10))) as it:
        for _ in range(2):
            it.page.click(".sort[data-by=last]")
            helped = it.script(
                f"[...document.querySelectorAll('{SHOWN}')].map((tr) => tr.dataset.last !== '')"
            )
            assert helped == sorted(helped, reverse=True)
            assert {True, False} == set(helped)


def test_pages_are_turned_by_keyboard(browser, long):
    with opened(browser, long) as it:
        it.page.focus("#next")
        it.page.keyboard.press("Enter")
        assert it.page.text_content("#shown") == "250 memories: 101 to 200"
        assert it.page.text_content("#page") == "page 2 of 3"
        it.page.click("#next")
        assert len(it.texts(SHOWN)) == 50
        assert it.page.is_disabled("#next")
        it.page.click("#previous")
        assert it.page.text_content("#page") == "page 2 of 3"
        assert it.wrong == []


def test_a_link_to_another_memory_leads_to_its_row_wherever_that_is(browser, long):
    with opened(browser, long) as it:
        it.page.click(".group[data-group=merge]")
        link = it.page.locator(f"{SHOWN} .advised > .small > a").first
        key = link.text_content()
        # That is no merge itself: the filter is taken away, and its page turned to.
        link.press("Enter")
        assert it.script("document.activeElement.querySelector('.key').textContent") == key
        assert it.script("document.activeElement.dataset.verdict") == "drop"
        assert it.texts(".group[aria-pressed=true]") == []
        row = it.script("document.activeElement.id")
        it.page.goto(f"{long.as_uri()}#{row}")
        it.page.reload()
        assert it.script("document.activeElement.id") == row


def test_its_receipt_says_what_dropping_them_costs(browser, written):
    archive = made_archive(40)
    with opened(browser, written(archive)) as it:
        said = it.page.inner_text(".receipt-sum")
        assert said == (
            "Dropping these 15 saves 20 tokens a turn and costs 0.4 nats of help over "
            "400 responses; keep 1 of the 16 proposed."
        )
        [kept] = archive.receipt.kept
        assert kept in it.page.inner_text(".receipt")
        it.page.click(f".receipt a:text-is('{kept}')")
        assert "keep it: measured" in it.script("document.activeElement.innerText")
    first = replace(archive.receipt.first, keys=archive.receipt.proposed)
    nothing = replace(archive.receipt, kept=(), kept_for={}, rounds=(replace(first, missed=0),))
    with opened(browser, written(replace(archive, receipt=nothing))) as it:
        assert "costs nothing beyond noise over 400" in it.page.inner_text(".receipt-sum")
    none = replace(archive.receipt, rounds=(first, replace(first, keys=())), is_complete=False)
    with opened(browser, written(replace(archive, receipt=none))) as it:
        assert "keep all of them" in it.page.inner_text(".receipt-sum")
        assert "was not completed" in it.page.inner_text(".receipt")
    stale = replace(archive, stale="1 memory is not proposed any more")
    with opened(browser, written(replace(stale, receipt=replace(none, verified_at=1.7e9)))) as it:
        said = it.page.inner_text(".receipt")
        assert "Verified 2023-11-1" in said
        assert "other drops than are proposed now: 1 memory is not proposed any more." in said
        assert "to be kept: see the receipt" not in it.page.inner_text(".groups")
    assert 'class="card receipt"' not in archive_page(replace(archive, receipt=None))


def test_hostile_texts_are_shown_and_do_nothing(browser, written):
    everything = " ".join(PAYLOADS.values())
    its = [made_archive(5, text=text, weeks=2) for text in PAYLOADS.values()]
    archive = replace(
        made_archive(5, text=everything, weeks=2),
        advice=tuple(memory for each in its for memory in each.advice),
        timeline={key: line for each in its for key, line in each.timeline.items()},
        remarks=tuple(PAYLOADS.values()),
    )
    assert len(archive.advice) > MOST_ROWS
    with opened(browser, written(archive)) as it:
        shown = []
        for button in (".sort[data-by=key]", "#next"):
            it.page.click(button)
            it.script("for (const each of document.querySelectorAll('details')) each.open = true")
            does_nothing(it)
            shown += [each.strip() for each in it.texts(".text, .key, .name")]
        for text in PAYLOADS.values():
            expected = {text, f"{text} reason", f"{text} 0", f"{text} 4"}
            assert expected <= set(shown)
            it.page.fill("#find", text.splitlines()[0])
            assert f"{text} 3" in it.texts(KEYS)
            does_nothing(it)
        for said in ("model", "space", "unmeasured"):
            assert f"{everything} {said}" in shown
        title = re.sub("[ \t\n]+", " ", f"Which memories to keep: {everything} space")
        assert it.page.title() == title


def test_without_scripts_the_first_are_there_and_it_says_what_is_not(browser, long):
    context = browser.new_context(java_script_enabled=False)
    try:
        page = context.new_page()
        page.goto(long.as_uri())
        assert page.locator(SHOWN).count() == MOST_ROWS
        assert f"all but the first {MOST_ROWS} memories need JavaScript" in page.inner_text(
            "noscript"
        )
    finally:
        context.close()


@pytest.mark.slow
def test_ten_thousand_memories_stay_usable(browser, written):
    file = written(made_archive(10_000, weeks=3, receipt=False))
    assert file.stat().st_size < 30_000_000
    with opened(browser, file) as it:
        assert it.page.text_content("#shown") == "10,000 memories: 1 to 100"
        # What is not shown costs nothing to lay out.
        assert len(it.texts(SHOWN)) == MOST_ROWS
        it.page.fill("#find", "tea 999")
        assert it.page.text_content("#shown") == "11 of 10,000 memories"
        it.page.click(".sort[data-by=key]")
        assert numbers(it) == [999, *range(9990, 10_000)]
        assert it.wrong == []


def test_long_texts_are_cut_so_that_the_file_is_not_too_large():
    bare = made_archive(1000, text="word", receipt=False)
    its = [
        replace(it, evidence=replace(it.evidence, version=replace(it.evidence.version, text=None)))
        for it in bare.advice
    ]
    texts = {it.key: "word " * 10_000 for it in its}
    assert len(archive_page(replace(bare, advice=tuple(its), texts=texts))) < 2 * MOST_TEXT
