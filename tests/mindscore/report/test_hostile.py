"""Whatever a conversation says: it is shown as it is, and does nothing."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from tests.cases import mostly_slow

from mindhooks import MemoryStats, Outcome

from ..opening import opened

PAYLOADS = {
    "script": "<script>window.__xss=1</script>",
    "handler": "<img src=x onerror=window.__xss=1>",
    "svg": "<svg/onload=window.__xss=1>",
    "quotes": "\"'><script>window.__xss=1</script>",
    "attribute": '" autofocus onfocus="window.__xss=1" x="',
    "script end": "</script><script>window.__xss=1</script>",
    "style end": "</style><script>window.__xss=1</script>",
    "title end": "</title></textarea></noscript><script>window.__xss=1</script>",
    "comment": "<!--<script>window.__xss=1//-->",
    "cdata": "]]><![CDATA[<script>window.__xss=1</script>",
    "template": "{{ 7*7 }}{% print(cycler.__init__.__globals__) %}${7*7}#{7*7}",
    "address": "javascript:window.__xss=1",
    "data address": "data:text/html,<script>parent.__xss=1</script>",
    "lines": "a\u2028window.__xss=1\u2029//",
    "bidi": "\u202e\u2066gnp.exe\u200f\u2069",
    "css": "red;}*{background:url(http://127.0.0.1:9/x)}/*",
    "import": "@import 'http://127.0.0.1:9/x.css';",
    "frame": "<iframe srcdoc='<script>parent.__xss=1</script>'></iframe>",
    "refresh": "<meta http-equiv=refresh content='0;url=http://127.0.0.1:9/'><base href=//x/>",
    "entities": "&lt;script&gt;&#x3c;b&#62;&amp;nbsp; \\u003cscript\\u003e \\x3cscript\\x3e",
    "math": "<math><mtext><table><mglyph><style><!--</style><img src onerror=window.__xss=1>",
    "json": '"}],"x":[{"__proto__":{"polluted":1}}]',
}


@pytest.fixture(
    params=mostly_slow(PAYLOADS, "script", "quotes", "script end", "template", "frame", "json")
)
def text(request):
    return request.param


@pytest.fixture
def matrix(made_up, write_report, text):
    """A report in which everything that can say anything says ``text``."""
    result = made_up(text=text, memories=4, responses=3)
    first = result.keys[0]
    outcomes = {key: Outcome("scored") for key in result.keys}
    outcomes[first] = Outcome("failed", f"{text} failed")
    scores = {key: score for key, score in result.scores.items() if key != first}
    transcript = replace(result.transcript, file=Path(f"{text} file".replace("/", "|")))
    return write_report(
        replace(
            result,
            transcript=transcript,
            scores=scores,
            model=f"{text} model",
            error=f"{text} error",
            remarks=(f"{text} remark",),
            stats=MemoryStats(outcomes, 1, 2, 3, 4.0, f"{text} error"),
        ),
        server={"scorer": f"{text} scorer", "base_url": f"http://user:{text}@h/{text}?k=secret"},
    )


@pytest.fixture
def candidates(made_up, write_report, text):
    return write_report(made_up("score-finetune", text=text))


def does_nothing(it):
    assert it.script("window.__xss") is None
    assert it.script("({}).polluted") is None
    assert it.wrong == []


def test_hostile_texts_are_shown_and_do_nothing(browser, matrix, candidates, text):
    with opened(browser, matrix) as it:
        it.page.locator("#matrix [role=grid]").focus()
        for key in ("ArrowRight", "ArrowDown", "Enter", "Control+Home"):
            it.page.keyboard.press(key)
        box = it.page.locator("#matrix canvas").bounding_box()
        it.page.mouse.move(box["x"] + box["width"] - 40, box["y"] + 60)
        it.script("document.querySelector('.spoken mark').focus()")
        assert "nats" in it.page.text_content("#tip")
        it.page.fill("#find", text.splitlines()[0])
        titles = it.script(
            """() => [...document.querySelectorAll("#ranking .choose")].map((button) => {
              button.click();
              return document.querySelector("#chosen-title .key").textContent;
            })"""
        )
        assert len(titles) == 3
        assert all(title.startswith(text) for title in titles)
        it.script("document.querySelector('.sort[data-by=key]').click()")
        does_nothing(it)
        shown = [each.strip() for each in it.texts(".text, .key, .name, dd, .excerpt")]
        name = f"{text} file".replace("/", "|")
        for expected in (
            f"{text} k1", f"{text} memory 1", f"{text} part", f"{text} printed", f"{text} answer 1",
            f"{text} failed", f"{text} model", f"{text} error", f"{text} remark", name,
        ):  # fmt: skip
            assert expected in shown
        assert it.page.title() == re.sub("[ \t\n]+", " ", f"{name}: what its memories did")
        assert not [each for each in it.texts("dd") if "user:" in each or "k=secret" in each]

        it.page.goto(candidates.as_uri())
        it.wrong.remove(f"request: {candidates.as_uri()}")
        does_nothing(it)
        shown = [each.strip() for each in it.texts(".text")]
        assert shown[:3] == [f"user: {text} before", f"{text} said", f"{text} otherwise"]
