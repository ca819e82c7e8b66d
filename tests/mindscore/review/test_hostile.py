"""Whatever a conversation, a model or a server says, a page only shows it."""

from dataclasses import replace

from mindhooks import FinetuneCandidate, MemoryScore, ResponseDivergence
from mindscore.store import CandidateName, History, Review, Reviews, RunRecord, Store

from .conftest import conversation

ELSEWHERE = "http://elsewhere.invalid"
PAYLOADS = [
    "<script>window.pwned=1</script>",
    "</script><script>window.pwned=1</script>",
    "</title></style></textarea></noscript><script>window.pwned=1</script>",
    "<!--<script>--><script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=1>",
    f"<img src={ELSEWHERE}/a.png>",
    "<svg onload=window.pwned=1>",
    "<svg><script>window.pwned=1</script></svg>",
    f"<link rel=stylesheet href={ELSEWHERE}/a.css>",
    f"<style>@import '{ELSEWHERE}/a.css'; body {{ display: none }}</style>",
    f"<iframe src={ELSEWHERE}></iframe><object data={ELSEWHERE}></object>",
    f"<base href={ELSEWHERE}/><meta http-equiv=refresh content='0;url={ELSEWHERE}'>",
    f"<form action={ELSEWHERE}><button autofocus onfocus=window.pwned=1>x</button></form>",
    '"><script>window.pwned=1</script>',
    "' onmouseover='window.pwned=1' autofocus onfocus='window.pwned=1' x='",
    '" onmouseover="window.pwned=1" autofocus onfocus="window.pwned=1" x="',
    "javascript:window.pwned=1",
    "{{ 7 * 7 }}{% raw %}${window.pwned=1}`+(window.pwned=1)+`",
    "\u2028window.pwned=1//\u2029\\u003cscript\\u003e</ScRiPt\t><p open onclick=window.pwned=1>",
    "\u202e<x onclick=window.pwned=1>\u2066\x01\x1b[31m\r\n\0<script/x>window.pwned=1</script>",
]
ALL = " ".join(PAYLOADS)
MODEL = " ".join(PAYLOADS[:-1])
"""Without the last: forms keep neither NUL nor carriage returns, and servers name no such model."""
NOT_OURS = (
    "script:not([src^='/assets/'], [type='application/json']), iframe, object, base, style, img, "
    "meta[http-equiv], link:not([href^='/assets/']), form:not([action^='/']), [onload]"
)


async def _fill(settings):
    """Have each text that the store keeps be hostile."""
    store, history, reviews = Store(settings), History(settings), Reviews(settings)
    for at, text in enumerate(PAYLOADS):
        cell = ResponseDivergence(at, text, 1.0 + at, 1.0 + at)
        await store.record_score(MemoryScore(text, 1.0 + at, "incremental", (cell,)), MODEL, 0.3)
        await store.record_row(MemoryScore(text, 1.0 + at, "full", (cell,)), MODEL)
        await history.record_run(RunRecord(text, MODEL, at, 1.0, 1, 1, None, 1, 1, text))
        candidate = FinetuneCandidate(
            entry_idx=at, node_id=text, divergence=50.0 - at, response_text=text,
            prior_context=text, context_ids=(1,), bare_context_ids=(1,),
            continuation_ids=(at, 9), alternate_text=PAYLOADS[at - 1], alternate_ids=(5, 9),
            timestamp_ns=at,
        )  # fmt: skip
        await store.record_candidate(candidate, MODEL)
    # One accepted with a text of its own, and two trained: with and without one.
    for at, text in enumerate(PAYLOADS[:3]):
        name = (await reviews.queue())[at].name
        if at != 2:
            await reviews.decide(name, Review("accepted", "edited", 1.0, text + ALL, (1, 9)))
        if at:
            sent = [(at, (at, 9))]
            await store.mark_trained(sent, "job", f"{ALL}{at}")
    assert isinstance(name, CandidateName)


def test_hostile_texts_are_shown_and_run_nowhere(tables, transcript, reviewing, opened):
    memories = {f"{text} {at}": text for at, text in enumerate(PAYLOADS)}
    lines = conversation(memories, [(text, text) for text in PAYLOADS])
    for at, line in enumerate(lines):
        line["id"] = f"{ALL} {at}"
    talk = replace(transcript(lines), remarks=tuple(PAYLOADS))
    tables["store"]["namespace"] = ALL
    requests, dialogs = [], []
    with reviewing(tables, talk) as page, opened(page.address) as tab:
        page.run(_fill(page.settings.store))
        tab.on("request", lambda it: requests.append(it.url))
        tab.on("dialog", lambda it: (dialogs.append(it.message), it.dismiss()))

        def look(path=None, *, texts=()):
            if path is not None:
                tab.goto(page.url + path)
            shown = _plain(tab.locator("body").evaluate("it => it.textContent"))
            for text in texts:
                assert _plain(text) in shown
            assert tab.evaluate("window.pwned") is None
            assert tab.locator(NOT_OURS).count() == 0

        look("/", texts=[ALL, *PAYLOADS])
        for name, command, found in (
            ("Score memories", "score", f"{PAYLOADS[0]} 0"),
            ("Score the full matrix", "score-full", f"{PAYLOADS[0]} 0"),
            ("Find candidates", "score-finetune", f"#1 {PAYLOADS[0]}"),
        ):
            tab.get_by_role("button", name=name).click()
            tab.locator("[data-panel]").get_by_text(f"{command}: ").wait_for()
            tab.locator("[data-state=ended]").wait_for()
            look(texts=[found])
        for path, texts in {
            "/memories": PAYLOADS,
            "/archive": PAYLOADS,
            "/matrix": [MODEL],
            "/candidates": [MODEL],
            "/candidates?show=accepted": [PAYLOADS[0] + ALL, ALL],
            "/candidates?show=trained": [f"{ALL}1", PAYLOADS[1] + ALL],
        }.items():
            look(path)
            tab.locator("select[name=model]").select_option(MODEL)
            tab.get_by_role("button", name="Show").click()
            tab.wait_for_url("**model=**")
            look(texts=texts)
        # Each candidate, and the message after each decision.
        tab.goto(f"{page.url}/candidates")
        tab.locator("select[name=model]").select_option(MODEL)
        tab.get_by_role("button", name="Show").click()
        for at in range(3, len(PAYLOADS)):
            tab.locator("h2#candidate", has_text=f"Response #{at} ").wait_for()
            tab.wait_for_load_state("load")
            look(texts=[PAYLOADS[at], PAYLOADS[at - 1]])
            tab.get_by_text("Edit the answer").click()
            tab.get_by_label("The answer to train on").hover()
            tab.get_by_role("button", name="Reject").click()
        tab.get_by_text("All candidates are decided").wait_for()
        # What a request says comes back in no page but as text.
        asked = dict.fromkeys(("show", "at", "done", "sort", "find", "verdict"), ALL)
        for path in ("/candidates", "/memories", "/matrix", "/archive"):
            for chosen in (ALL, MODEL):
                answer = tab.request.get(page.url + path, params={**asked, "model": chosen})
                assert "<script>window" not in answer.text()
        assert tab.request.get(f"{page.url}/{PAYLOADS[0]}").status == 404
    assert dialogs == []
    assert [it for it in requests if not it.startswith(page.url + "/")] == []


def _plain(text):
    """HTML has one kind of line end, and drops NUL."""
    return text.replace("\r\n", "\n").replace("\0", "")
