"""The report as people meet it: in a real browser, by eye, by keyboard and on paper."""

import socket
from dataclasses import replace

import pytest
from tests.cases import mostly_slow

from mindscore.measure.divergence import noise_limit

from ..opening import opened

WIDTHS = {"wide": (1440, 900), "phone": (390, 844)}
SEEN = {f"{it}-{width}": (it, width) for it in ("score", "full", "finetune") for width in WIDTHS}


@pytest.mark.parametrize(("command", "width"), mostly_slow(SEEN, "full-wide", "finetune-phone"))
def test_it_is_clean_and_open_to_everybody(
    browser, axe_source, screenshots, reports, command, width
):
    wide, high = WIDTHS[width]
    with opened(browser, reports[command], wide, high) as it:
        for scheme in ("light", "dark"):
            it.page.emulate_media(color_scheme=scheme)
            picture = screenshots / f"report-{command}-{width}-{scheme}.png"
            it.page.screenshot(path=picture, full_page=True)
            assert it.script("document.documentElement.scrollWidth") == wide
            assert it.serious(axe_source) == []
        assert it.wrong == []


def test_its_policy_holds(browser, reports):
    with socket.create_server(("127.0.0.1", 0)) as outside, opened(browser, reports["full"]) as it:
        broken = it.script(
            """async (address) => {
              const broken = [], note = (it) => broken.push(it.violatedDirective);
              addEventListener("securitypolicyviolation", note);
              const script = document.createElement("script");
              script.textContent = "window.ran = true";
              document.body.append(script);
              const style = document.createElement("style");
              style.textContent = "body { color: red }";
              document.head.append(style);
              document.body.setAttribute("style", "color: red");
              document.body.setAttribute("onclick", "window.ran = true");
              document.body.click();
              const image = new Image();
              image.src = `${address}x.png`;
              await fetch(address).catch(() => {});
              await new Promise((done) => setTimeout(done, 50));
              return broken;
            }""",
            f"http://127.0.0.1:{outside.getsockname()[1]}/",
        )
        assert it.script("window.ran") is None
        assert {"script-src-elem", "script-src-attr", "style-src-elem", "style-src-attr"} < set(
            broken
        )
        assert {"img-src", "connect-src"} < set(broken)
        outside.setblocking(False)
        with pytest.raises(BlockingIOError):
            outside.accept()


def active(it):
    return it.script(
        """() => {
          const frame = document.querySelector("#matrix [role=grid]");
          return document.getElementById(frame.getAttribute("aria-activedescendant")).textContent;
        }"""
    )


def test_the_matrix_is_walked_by_keyboard(browser, reports):
    with opened(browser, reports["full"]) as it:
        grid = it.page.locator("#matrix [role=grid]")
        grid.focus()
        it.page.keyboard.press("Control+Home")
        first = active(it)
        it.page.keyboard.press("ArrowRight")
        right = active(it)
        it.page.keyboard.press("ArrowDown")
        below = active(it)
        it.page.keyboard.press("Control+End")
        last = active(it)
        rows, columns = (
            int(grid.get_attribute("aria-rowcount")),
            int(grid.get_attribute("aria-colcount")),
        )
        assert len({first, right, below, last}) == 4
        assert first.split(",")[0] == right.split(",")[0] != below.split(",")[0]
        assert "nats" in right or "no difference" in right
        cell = it.page.locator("#matrix [role=gridcell]")
        assert cell.get_attribute("aria-colindex") == str(columns)
        row = it.page.locator("#matrix [role=grid] > div > [role=row], #matrix [role=row]")
        assert row.first.get_attribute("aria-rowindex") == str(rows)
        # No further than the last.
        it.page.keyboard.press("ArrowDown")
        it.page.keyboard.press("ArrowRight")
        assert active(it) == last
        it.page.keyboard.press("Home")
        it.page.keyboard.press("PageUp")
        it.page.keyboard.press("Enter")
        key = active(it).split(",")[0]
        assert it.texts("#chosen-title .key") == [key]
        assert it.wrong == []


MARKED = """() => {
  const box = document.getElementById("turns").getBoundingClientRect();
  const [turn, ...others] = document.querySelectorAll("#turns [aria-current]");
  const { top } = turn.getBoundingClientRect();
  return {
    alone: others.length === 0, inSight: box.top <= top && top < box.bottom,
    text: turn.textContent, left: box.left,
    apart: box.left - document.getElementById("matrix").getBoundingClientRect().right,
    below: box.top - document.getElementById("matrix").getBoundingClientRect().bottom,
  };
}"""


@pytest.mark.parametrize("width", WIDTHS)
def test_a_cell_that_is_chosen_marks_its_turn_and_brings_it_into_sight(browser, reports, width):
    with opened(browser, reports["full"], *WIDTHS[width]) as it:
        grid = it.page.locator("#matrix [role=grid]")
        for key in ("Control+Home", "Control+End"):
            grid.focus()
            it.page.keyboard.press(key)
            it.page.keyboard.press("Enter")
            found = it.script(MARKED)
            number = active(it).partition("response ")[2].partition(":")[0]
            assert number in found["text"].split()[0]
            assert found["alone"]
            assert found["inSight"]
        assert (found["apart"] if width == "wide" else found["below"]) >= 0
        assert it.wrong == []


def test_beside_a_turn_are_the_memories_that_changed_it_beyond_noise(browser, reports):
    with opened(browser, reports["full"]) as it:
        data = it.script('JSON.parse(document.getElementById("data").textContent)')
        for column in range(len(data["responses"])):
            clear = [
                (row[column], memory["key"])
                for row, noise, memory in zip(
                    data["signed"], data["noise"], data["memories"], strict=True
                )
                if row[column] is not None
                and abs(row[column]) > noise_limit(noise[column], data["spread"][column])
            ]
            largest = sorted(clear, key=lambda it: -abs(it[0]))[:5]
            said = it.texts(f"#turns [data-column='{column}'] .key")
            assert said == [key for _, key in largest]


def test_a_response_leads_to_its_memories_and_a_memory_to_its_responses(browser, reports):
    with opened(browser, reports["full"]) as it:
        turn = (
            it.page.locator("#turns .turn[data-column]").filter(has=it.page.locator("a.key")).last
        )
        link, place = turn.locator("a.key").first, turn.get_attribute("id")
        key = link.inner_text()
        link.click()
        assert it.page.locator("tr:target .key").inner_text() == key
        assert key in it.page.locator("#chosen-title").inner_text()
        back = it.page.locator(f'#chosen-body a[href="#{place}"]')
        back.click()
        assert it.page.locator(".turn:target").get_attribute("id") == place
        row = it.page.locator("#ranking td a").first
        row.click()
        assert row.inner_text() in it.page.locator(".turn:target h3").inner_text()
        assert it.wrong == []


def test_the_matrix_opens_on_its_first_effect_beyond_noise_or_its_largest(
    browser, made_up, write_report
):
    result = made_up(memories=1, text="tea")
    [(key, score)] = result.scores.items()
    count = len(score.divergences)
    assert count > 1
    for sizes, opened_on in (([0.2] + [3.0] * (count - 1), 1), ([0.2] * (count - 1) + [0.5], -1)):
        row = tuple(
            replace(it, signed=size, divergence=size, noise=1.0)
            for it, size in zip(score.divergences, sizes, strict=True)
        )
        given = replace(result, scores={key: replace(score, divergences=row, hold=None)})
        with opened(browser, write_report(given)) as it:
            assert f"response #{row[opened_on].entry_idx}:" in active(it)


def test_very_long_texts_are_cut_until_they_are_asked_for(browser, made_up, write_report):
    result = made_up("score-finetune")
    first, second = result.candidates
    long = replace(first, alternate_text="word " * 3000)
    given = replace(result, candidates=(long, second))
    with opened(browser, write_report(given)) as it:
        assert it.page.locator(".fold").count() == 1
        diff = it.page.locator(".fold + .diff")
        before = diff.bounding_box()["height"]
        it.page.get_by_text("show all").click()
        assert before < 400 < diff.bounding_box()["height"]


def test_a_cell_tells_its_memory_and_response_on_hover_and_on_a_tap(browser, reports):
    with opened(browser, reports["full"], has_touch=True) as it:
        canvas = it.page.locator("#matrix canvas")
        box = canvas.bounding_box()
        details = it.page.locator("#matrix .matrix-details")
        before = details.text_content()
        it.page.mouse.move(box["x"] + box["width"] - 30, box["y"] + 150)
        it.page.wait_for_function(
            "(before) => document.querySelector('#matrix .matrix-details').textContent !== before",
            arg=before,
        )
        told = details.text_content()
        assert "Memory" in told
        assert "Response #" in told
        it.page.touchscreen.tap(box["x"] + box["width"] - 30, box["y"] + 210)
        it.page.wait_for_function(
            "(before) => document.querySelector('#matrix .matrix-details').textContent !== before",
            arg=told,
        )
        assert it.wrong == []


def shown(it):
    return it.script(
        """() => Array.from(document.querySelectorAll("#ranking tbody tr:not([hidden])"),
          (row) => row.querySelector(".key").textContent)"""
    )


def test_memories_are_sorted_and_filtered(browser, reports):
    with opened(browser, reports["score"]) as it:
        every = shown(it)
        assert len(every) == 19
        it.page.click(".sort[data-by=key]")
        assert it.page.get_attribute("th:has(.sort[data-by=key])", "aria-sort") == "ascending"
        # What was not scored stays last.
        scored = [key for key in shown(it) if key != "soil-survey"]
        assert scored == sorted(scored)
        assert shown(it)[-1] == "soil-survey"
        it.page.click(".sort[data-by=key]")
        assert [key for key in shown(it) if key != "soil-survey"] == scored[::-1]
        it.page.click(".sort[data-by=largest]")
        assert shown(it) == every
        it.page.fill("#find", "Presta")
        assert shown(it) == ["bicycle-tubes"]
        assert it.texts("#shown") == ["1 of 19 memories"]
        it.page.fill("#find", "")
        it.page.select_option("#effect", "unscored")
        assert shown(it) == ["soil-survey"]
        it.page.select_option("#effect", "less")
        assert "soil-survey" not in shown(it)
        it.page.select_option("#effect", "")
        it.page.check("#clear")
        assert shown(it)
        assert "soil-survey" not in shown(it)
        assert it.wrong == []


def test_the_words_that_a_chosen_memory_made_likelier_are_marked(browser, reports):
    with opened(browser, reports["full"]) as it:
        it.page.click("#ranking .choose:text-is('dentist')")
        assert it.texts("#ranking [aria-pressed=true]") == ["dentist"]
        [first] = it.texts("#chosen .response:first-child .text")
        assert "Dr. Okafor" in first
        strong = it.texts("#chosen .response:first-child mark.more-3")
        assert {"Okafor", "Linden"} <= set(strong)
        mark = it.page.locator("#chosen .response:first-child mark").first
        mark.hover()
        assert "nats" in it.page.locator("#tip").text_content()
        # By keyboard, too: one stop for a response, then the arrows.
        it.page.keyboard.press("Escape")
        assert it.page.locator("#tip").is_hidden()
        mark.focus()
        it.page.keyboard.press("ArrowRight")
        assert it.script("document.activeElement.tagName") == "MARK"
        assert it.page.locator("#tip").is_visible()
        # What the tip says is said of the word, and of no other.
        assert it.script("document.activeElement.getAttribute('aria-describedby')") == "tip"
        assert it.page.locator("[aria-describedby]").count() == 1
        it.page.keyboard.press("Escape")
        assert it.page.locator("[aria-describedby]").count() == 0
        assert (
            it.script(
                "document.querySelectorAll('#chosen .response:first-child [tabindex=\"0\"]').length"
            )
            == 1
        )
        assert it.wrong == []


def test_noise_that_is_assumed_is_said_to_be(browser, made_up, write_report):
    result = made_up(memories=1, text="tea")
    [(key, score)] = result.scores.items()
    for noise, told in ((None, "noise (assumed, not measured)."), (0.5, "noise.")):
        row = tuple(
            replace(it, signed=0.001, divergence=0.001, noise=noise) for it in score.divergences
        )
        given = replace(result, scores={key: replace(score, divergences=row, hold=None)})
        with opened(browser, write_report(given)) as it:
            assert f"It made no difference beyond {told}" in it.page.inner_text("#chosen-body")
            assert it.wrong == []


def test_on_paper_all_is_open_and_nothing_is_to_be_pressed(browser, screenshots, reports):
    for command in ("full", "finetune"):
        with opened(browser, reports[command]) as it:
            it.page.emulate_media(media="print")
            it.page.wait_for_function(
                "[...document.querySelectorAll('details')].every((it) => it.open)"
            )
            picture = screenshots / f"report-{command}-print.png"
            try:
                it.page.screenshot(path=picture, full_page=True)
            except Exception as error:
                # Chromium now and then fails to capture a page right after its media changed.
                if "Unable to capture" not in str(error):
                    raise
                it.page.wait_for_timeout(500)
                it.page.screenshot(path=picture, full_page=True)
            visible = it.script(
                """() => [...document.querySelectorAll("input, select, .matrix-details")]
                  .filter((it) => it.checkVisibility()).length"""
            )
            assert visible == 0
            cut = it.script(
                """() => [...document.querySelectorAll(".table-scroll, #chosen, .matrix-frame")]
                  .filter((it) => it.clientHeight && it.scrollHeight > it.clientHeight + 1).length
                """
            )
            assert cut == 0
            assert len(it.page.pdf()) > 10_000
            assert it.wrong == []


def test_without_scripts_all_but_the_pictures_is_there(browser, reports):
    context = browser.new_context(java_script_enabled=False)
    try:
        page = context.new_page()
        page.goto(reports["full"].as_uri())
        assert "dentist" in page.inner_text("#ranking")
        assert "needs JavaScript" in page.inner_text("noscript")
    finally:
        context.close()
