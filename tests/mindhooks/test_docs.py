"""``hooks/docs``: a page per hook says what the specs say, and its example runs."""

import dataclasses
import inspect
import logging
import re
from pathlib import Path

import pytest

from mindhooks import Registry, ScorerCapabilities
from mindhooks._loading import SCORER_ATTRIBUTES, SINK_ATTRIBUTES
from mindhooks._specs import SPECS
from mindhooks.testing import StubMind

DOCS = Path(__file__).parents[2] / "hooks" / "docs"
PAGES = {file.stem: file.read_text(encoding="utf-8") for file in DOCS.glob("on_*.md")}
HEADINGS = ("Called", "Order", "Time", "Ignored")


def blocks(page, kind):
    return re.findall(rf"^```{kind}\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)


def test_there_is_a_page_for_each_hook_and_for_nothing_else():
    assert PAGES.keys() == SPECS.keys()


def test_the_overview_links_to_each_page():
    linked = re.findall(r"\[`(\w+)`\]\((\w+)\.md\)", (DOCS / "README.md").read_text())
    assert linked == [(hook, hook) for hook in SPECS]


@pytest.mark.parametrize("hook", SPECS)
def test_a_page_names_every_parameter_of_its_hook_with_its_type_and_no_other(hook):
    page = PAGES[hook]
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \| \S.* \|$", page, flags=re.MULTILINE)
    rows = [(name, annotation.replace("\\|", "|")) for name, annotation in rows]
    parameters = inspect.signature(SPECS[hook]).parameters.values()
    assert rows == [(it.name, it.annotation) for it in parameters]
    called = ", ".join(it.name for it in parameters)
    assert page.startswith(f"# {hook}\n")
    assert f"`{hook}({called})`" in page


@pytest.mark.parametrize("hook", SPECS)
def test_a_page_says_when_in_which_order_and_for_how_long(hook):
    said = re.findall(r"^\*\*(\w+)\*\*", PAGES[hook], flags=re.MULTILINE)
    assert [it for it in said if it in HEADINGS] == list(HEADINGS)


@pytest.mark.parametrize("hook", SPECS)
def test_a_pages_example_implements_its_hook_and_prints_what_the_page_says(hook, run_program):
    [program] = blocks(PAGES[hook], "python")
    [said] = blocks(PAGES[hook], "text")
    assert f"def {hook}(" in program
    assert run_program(program) == said


def test_the_page_on_sinks_names_what_a_sink_has_and_its_example_prints_what_it_says(run_program):
    page = (DOCS / "sinks.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `(?:await )?(\w+).*?` \|", page, flags=re.MULTILINE)
    assert named == list(SINK_ATTRIBUTES)
    [program] = blocks(page, "python")
    [said] = blocks(page, "text")
    assert run_program(program) == said
    assert "[training sinks](sinks.md)" in (DOCS / "README.md").read_text()


def test_the_page_on_scorers_names_what_a_scorer_has_and_its_example_prints_what_it_says(
    run_program,
):
    page = (DOCS / "scorers.md").read_text(encoding="utf-8")
    of_a_scorer, capabilities = re.findall(r"^(?:\|.*\n)+", page, flags=re.MULTILINE)
    named = re.findall(r"^\| `(?:await )?(\w+).*?` \|", of_a_scorer, flags=re.MULTILINE)
    assert named == list(SCORER_ATTRIBUTES)
    rows = re.findall(r"^\| `(\w+)` \| `([^`]*)` \|", capabilities, flags=re.MULTILINE)
    fields = dataclasses.fields(ScorerCapabilities)
    assert rows == [(field.name, str(field.default) or '""') for field in fields]
    [program] = blocks(page, "python")
    [said] = blocks(page, "text")
    assert run_program(program) == said
    assert "[Scorers](scorers.md)" in (DOCS / "README.md").read_text()


@pytest.mark.parametrize("hook", ["on_score", "on_candidate", "on_run_end"])
async def test_the_pages_name_the_time_limit_that_is_the_default(hook):
    from mindhooks._errors import LOOP_HOLD_LIMIT_S
    from mindhooks._registry import DEFAULT_LISTENER_TIMEOUT_S

    assert f"`plugins.listener_timeout_s` ({DEFAULT_LISTENER_TIMEOUT_S:g} s)" in PAGES[hook]
    assert f"more than {LOOP_HOLD_LIMIT_S:g} s is logged" in PAGES[hook]


async def test_the_overviews_way_to_see_the_hooks_called_works(caplog):
    [program] = blocks((DOCS / "README.md").read_text(), "python")
    logger = logging.getLogger("mindhooks.trace")
    before = logger.level
    try:
        exec(compile(program, "README.md", "exec"), {})
        async with Registry(StubMind(), {}) as registry:
            await registry.emit_score(None)
    finally:
        logger.setLevel(before)
    assert [record.name for record in caplog.records] == ["mindhooks.trace"]
