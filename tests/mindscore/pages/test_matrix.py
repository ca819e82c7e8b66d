"""The heat map, in a page that holds nothing else."""

import pytest
from markupsafe import Markup

from mindscore.pages.environment import asset, csp, embed

from ..opening import opened

PAGE = Markup("""<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>it</title>
<meta http-equiv="Content-Security-Policy" content="{policy}">
<style>{theme}</style><style>{style}</style></head>
<body><main><h1>it</h1><div id="it"></div></main>{data}
<script>{script}</script><script>{start}</script></body></html>""")
START = """
const data = JSON.parse(document.getElementById("data").textContent);
window.made = mindscoreMatrix(document.getElementById("it"), data);
window.heard = [];
document.getElementById("it").addEventListener("mindscore:cell", (it) => heard.push(it.detail));
"""
KINDS = {
    "signed": [[3.0, -3.0, None, 0.0, 0.2]],
    "noise": [[0.1, 0.1, None, 0.0, 0.5]],
}


@pytest.fixture
def page(tmp_path):
    """Writes the page: ``page(signed=[[…]], noise=None)``."""

    def write(signed, noise=None, **more):
        columns = len(signed[0]) if signed else 0
        data = {
            "memories": [{"key": f"k{at}", "text": f"memory {at}"} for at in range(len(signed))],
            "responses": [
                {"entry_idx": at, "node_id": f"r{at}", "text": f"response {at}"}
                for at in range(columns)
            ],
            "signed": signed,
            "noise": noise,
            **more,
        }
        theme, style, script = (asset(it) for it in ("theme.css", "matrix.css", "matrix.js"))
        file = tmp_path / "matrix.html"
        file.write_text(
            PAGE.format(
                policy=csp([script, START], [theme, style]),
                theme=Markup(theme),
                style=Markup(style),
                script=Markup(script),
                start=Markup(START),
                data=embed("data", data),
            ),
            encoding="utf-8",
        )
        return file

    return write


def told(it):
    return it.page.text_content("#it .matrix-details")


COLOUR = """([row, column]) => {
  const canvas = document.querySelector("#it canvas");
  const dots = canvas.width / parseFloat(canvas.style.width);
  // As short as these keys are, and as wide as the window is.
  const at = [60 + 56 * column + 5, 132 + 24 * row + 4].map((it) => it * dots);
  return [...canvas.getContext("2d").getImageData(...at, 1, 1).data.slice(0, 3)];
}"""


def colour(it, column, row=0):
    """Red, green and blue near a cell's upper left corner, where no number stands."""
    return it.script(COLOUR, [row, column])


def test_each_kind_of_value_is_told_in_words(browser, page):
    with opened(browser, page(**KINDS)) as it:
        it.page.locator("#it [role=grid]").focus()
        it.page.keyboard.press("Control+Home")
        found = []
        for _ in KINDS["signed"][0]:
            found.append(told(it).partition("Memory")[0])
            it.page.keyboard.press("ArrowRight")
        assert found == [
            "+3.00 nats: likelier with the memory" + "noise ±0.10 nats",
            "-3.00 nats: less likely with the memory" + "noise ±0.10 nats",
            "not measured",
            "no difference" + "noise ±0.00 nats",
            "within noise: +0.20 of ±0.50 nats",
        ]
        assert "memory 0" in told(it)
        assert "response 4" in told(it)
        assert it.wrong == []


def test_where_noise_is_not_known_a_given_limit_counts(browser, page):
    values = [[0.5, 1.5, 0.5, 0.5, -0.5]]
    noise, spread = [[None, None, 0.1, None, 0.0]], [0.0, 0.0, 0.0, 0.2, 0.0]
    with opened(browser, page(values, noise, spread=spread, unmeasured=1.0)) as it:
        it.page.locator("#it [role=grid]").focus()
        it.page.keyboard.press("Home")
        found = []
        for _ in values[0]:
            found.append(told(it).partition(" nats")[0])
            it.page.keyboard.press("ArrowRight")
        assert found == ["within noise: +0.50 of ±1.00", "+1.50", "+0.50", "+0.50", "-0.50"]


def test_an_estimate_is_told_as_one_and_marked(browser, page):
    with opened(browser, page([[3.0, 0.5]], [[0.1, 0.2]], estimated=[[False, True]])) as it:
        grid = it.page.locator("#it [role=grid]")
        grid.focus()
        it.page.keyboard.press("End")
        assert told(it).startswith("≈ +0.50 nats: estimated, not measured")
        assert "95 % of the estimates are within ±0.20 nats" in told(it)
        assert "estimated, not measured" in it.texts("#it .matrix-legend > span")
        it.page.keyboard.press("Home")
        assert told(it).startswith("+3.00 nats: likelier with the memory")
        assert it.wrong == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_helped_is_blue_what_harmed_is_orange_and_noise_is_grey(browser, page, scheme):
    with opened(browser, page(**KINDS), width=700, color_scheme=scheme) as it:
        it.page.wait_for_function("document.querySelector('#it canvas').width > 0")
        red, _, blue = colour(it, 0)
        assert blue > red + 60
        red, _, blue = colour(it, 1)
        assert red > blue + 60
        grey = colour(it, 4)
        assert max(grey) - min(grey) < 20
        assert max(grey) != max(colour(it, 3))


def test_it_is_drawn_anew_where_the_colours_change(browser, page):
    with opened(browser, page(**KINDS), width=700) as it:
        light = colour(it, 3)
        it.page.emulate_media(color_scheme="dark")
        it.page.wait_for_function(
            f"(most) => Math.max(...({COLOUR})([0, 3])) < most", arg=max(light) / 2
        )


def test_a_cell_that_is_chosen_is_heard_of(browser, page):
    with opened(browser, page([[1.0, 2.0], [3.0, 4.0]])) as it:
        it.page.locator("#it [role=grid]").focus()
        it.page.keyboard.press("Enter")
        it.page.keyboard.press("ArrowUp")
        it.page.keyboard.press(" ")
        # One begins at the start.
        assert it.script("heard") == [{"row": 0, "column": 0}, {"row": 0, "column": 0}]
        it.script("made.focusOn(1, 0)")
        assert "+3.00" in told(it)


def test_keys_that_mean_something_else_to_a_browser_are_left_to_it(browser, page):
    with opened(browser, page([[2.0, 1.0], [0.0, 0.0]])) as it:
        it.page.locator("#it [role=grid]").focus()
        before = told(it)
        it.script("addEventListener('keydown', (it) => { window.taken = it.defaultPrevented; })")
        for key in ("Control+ArrowRight", "Meta+ArrowDown", "Alt+ArrowDown", "Control+PageDown"):
            it.page.keyboard.press(key)
            assert (it.script("taken"), told(it)) == (False, before)
        it.page.keyboard.press("Control+End")
        assert it.script("taken")


@pytest.mark.parametrize("signed", [[], [[]], [[], []]])
def test_nothing_is_no_reason_to_fail(browser, page, signed):
    with opened(browser, page(signed)) as it:
        assert it.page.text_content("#it") == "There is nothing to compare."
        it.script("(made.redraw(), made.focusOn(0, 0))")
        assert it.wrong == []


def test_it_fits_whatever_the_window(browser, axe_source, page):
    many = [[float(row - column) for column in range(80)] for row in range(60)]
    with opened(browser, page(many), width=1200) as it:
        for width in (390, 1600, 800):
            it.page.set_viewport_size({"width": width, "height": 700})
            it.page.wait_for_function(
                """() => {
                  const frame = document.querySelector("#it .matrix-frame");
                  return frame.querySelector("canvas").style.width === `${frame.clientWidth}px`;
                }"""
            )
            assert it.script("document.documentElement.scrollWidth") == width
        assert it.serious(axe_source) == []
        assert it.wrong == []
