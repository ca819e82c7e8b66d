"""``mindscore.score``: a conversation in any form, and the result as a table and a DataFrame."""

import asyncio
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest

import mindscore
from mindhooks import Context, MemoryScore, Node, Outcome, Role
from mindscore._util.errors import ConfigError, TranscriptError, UsageError

TOY = {"server": {"scorer": "toy"}}
MESSAGES = [
    {"role": "system", "content": "You help Nora. She drinks rooibos. Her dog is called Max."},
    {"role": "user", "content": "What shall I drink?"},
    {"role": "assistant", "content": "A pot of rooibos, as always."},
]
MEMORIES = {"tea": "She drinks rooibos.", "dog": "Her dog is called Max."}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "MINDSCORE_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def scores(conversation, memories=None, **options):
    found = mindscore.score(conversation, memories, settings=TOY, **options)
    assert found.error is None
    return {key: it.score for key, it in found.scores.items()}


@pytest.fixture(scope="module")
def expected():
    return scores(MESSAGES, MEMORIES)


def test_messages_and_memories_are_all_it_takes(expected):
    assert expected["tea"] > 5
    assert expected["dog"] == 0


def test_at_a_prompt_a_result_is_one_line(tmp_path):
    settings = {**TOY, "store": {"url": f"sqlite:///{tmp_path}/kept.sqlite3"}}

    def shown(**options):
        return repr(mindscore.score(MESSAGES, MEMORIES, settings=settings, **options))

    assert shown(finetune=True) == "<score-finetune by toy: 1 candidate>"
    assert [shown(), shown()] == ["<score by toy: 2 memories>", "<score by toy: 2 earlier scores>"]


def test_it_may_be_called_where_a_loop_runs(expected):
    async def cell():
        return scores(MESSAGES, MEMORIES)

    assert asyncio.run(cell()) == expected


def test_a_file_and_what_it_holds_are_the_same(expected, tmp_path):
    file, memories = tmp_path / "talk.json", tmp_path / "memories.json"
    file.write_text(json.dumps(MESSAGES))
    memories.write_text(json.dumps(MEMORIES))
    assert scores(file, memories) == scores(str(file), str(memories)) == expected
    assert scores({"messages": MESSAGES, "memories": MEMORIES}) == expected
    two = [{"id": "one", "messages": MESSAGES[:2]}, {"id": "two", "messages": MESSAGES}]
    assert scores(two, MEMORIES, select="two") == expected
    with pytest.raises(UsageError, match="2 conversations"):
        scores(two, MEMORIES)


def test_messages_may_be_objects_of_a_client(expected):
    said = SimpleNamespace(model_dump=lambda exclude_none: dict(MESSAGES[2]))
    assert scores((*MESSAGES[:2], said), MEMORIES) == expected


def test_memories_may_be_a_list_of_texts_or_of_objects(expected):
    assert scores(MESSAGES, list(MEMORIES.values())) == {
        "1": expected["tea"],
        "2": expected["dog"],
    }
    objects = [
        {"key": "tea", "text": MEMORIES["tea"]},
        {"id": "dog", "memory": MEMORIES["dog"]},
    ]
    assert scores(MESSAGES, objects) == expected


def test_messages_in_the_native_form_mark_their_memories_themselves():
    memory = {"role": "memory", "key": "tea", "content": "She drinks rooibos."}
    assert scores([memory, *MESSAGES[1:]])["tea"] > 5
    parts = [{"text": "You help. "}, {"text": "She drinks rooibos.", "key": "tea"}]
    assert scores([{"role": "system", "content": parts}, *MESSAGES[1:]])["tea"] > 5


def test_a_context_is_scored_as_it_is():
    memory = Node("m", Role.MEMORY, "Tea.", (1, 2, 3), memory_key="tea")
    answer = Node("a", Role.ASSISTANT, "Tea it is.", (8, 2, 3), body=(1, 3))
    context = Context((), (memory,), (Node("u", Role.USER, "?", (9,)), answer))
    found = mindscore.score(context, settings=TOY)
    assert found.scores["tea"].divergences[0].node_id == "a"
    assert "#1 Tea it is." in found._repr_html_()
    with pytest.raises(UsageError, match="marks its own memories"):
        mindscore.score(context, MEMORIES, settings=TOY)


@pytest.mark.parametrize(
    ("conversation", "memories", "said"),
    [
        (3, None, "conversation: expected a file, messages or a Context, got int"),
        (MESSAGES, 3, r"memories: expected \{key: text\}, a list or a file, got int"),
        (MESSAGES, {"tea": 3}, "memories: 'tea': expected text"),
        (MESSAGES, [{"key": "tea"}], "memories: 'tea': expected text"),
        (MESSAGES, [" "], "memories: '1': expected text that is not empty"),
        (MESSAGES, [{"id": "a", "text": "b"}, {"id": "a", "text": "c"}], "two texts of 'a'"),
        ([{"role": "user", "content": object()}], None, "conversation: is not JSON: .* object"),
        ([{"role": "nobody", "content": "x"}], None, "'role': expected one of"),
        ([], None, "conversation"),
        ("no/such/file", None, "no/such/file"),
    ],
)
def test_what_cannot_be_read_is_named(conversation, memories, said):
    with pytest.raises((UsageError, TranscriptError), match=said):
        mindscore.score(conversation, memories, settings=TOY)


def test_wrong_settings_and_options_are_refused():
    with pytest.raises(ConfigError, match=r"memory\.interval"):
        mindscore.score(MESSAGES, MEMORIES, settings={"memory": {"interval": 1}})
    with pytest.raises(UsageError, match="exclude each other"):
        mindscore.score(MESSAGES, MEMORIES, full=True, finetune=True, settings=TOY)


def test_nothing_is_kept_unless_the_settings_name_a_store(home):
    assert not mindscore.score(MESSAGES, MEMORIES, settings=TOY).known
    assert not mindscore.score(MESSAGES, MEMORIES, settings=TOY).known
    assert not list(home.rglob("*.sqlite3"))
    kept = {**TOY, "store": {"url": f"sqlite:///{home}/mine.sqlite3"}}
    first = mindscore.score(MESSAGES, MEMORIES, settings=kept)
    again = mindscore.score(MESSAGES, MEMORIES, settings=kept)
    assert {key: it.score for key, it in again.known.items()} == {
        key: it.score for key, it in first.scores.items()
    }
    assert not again.scores
    assert "scored before" in again._repr_html_()
    assert "just now" in again._repr_html_()


def test_the_user_s_own_settings_count_but_not_their_store(home):
    file = home / ".config" / "mindscore" / "config.toml"
    file.parent.mkdir(parents=True)
    url = f"sqlite:///{home}/theirs.sqlite3"
    file.write_text(f'[server]\nscorer = "toy"\n[store]\nurl = "{url}"\n')
    found = mindscore.score(MESSAGES, MEMORIES)
    assert (found.model, found.error) == ("toy", None)
    assert not (home / "theirs.sqlite3").exists()


def test_what_fails_while_scoring_is_the_result_s_error():
    gone = {"server": {"scorer": "score", "base_url": "http://127.0.0.1:9", "max_attempts": 1}}
    found = mindscore.score(MESSAGES, MEMORIES, settings=gone)
    assert found.error
    assert "This is not complete" in found._repr_html_()


# -- as a DataFrame -------------------------------------------------------------------------------


def test_the_frame_has_a_row_for_each_memory_and_response():
    pandas = pytest.importorskip("pandas")
    hold = {"plugins": {"settings": {"memory-scoring": {"hold": True}}}}
    settings = {**TOY, **hold, "memory": {"noise_repeats": 1}}
    found = mindscore.score(MESSAGES * 2, MEMORIES, full=True, settings=settings)
    made = found.to_pandas()
    assert isinstance(made, pandas.DataFrame)
    names = ["key", "entry_idx", "node_id", "divergence", "signed", "noise", "hold"]
    assert list(made.columns) == names
    assert len(made) == 4
    cells = {(key, it.node_id): it for key, row in found.scores.items() for it in row.divergences}
    for row in made.itertuples():
        cell = cells[row.key, row.node_id]
        assert (row.entry_idx, row.divergence, row.signed) == (
            cell.entry_idx, cell.divergence, cell.signed,
        )  # fmt: skip
        holds = {it.node_id: it.divergence for it in found.scores[row.key].hold}
        assert row.hold == holds[row.node_id]


def test_what_was_not_measured_is_no_number_in_the_frame():
    pytest.importorskip("pandas")
    made = mindscore.score(MESSAGES, MEMORIES, settings=TOY).to_pandas()
    assert made["noise"].isna().all()
    assert made["hold"].isna().all()
    assert {str(made[it].dtype) for it in ("divergence", "signed", "noise", "hold")} == {"float64"}


def test_the_frame_of_a_finetune_run_has_a_row_for_each_candidate():
    pytest.importorskip("pandas")
    found = mindscore.score(MESSAGES, MEMORIES, finetune=True, settings=TOY)
    [row] = found.to_pandas().to_dict("records")
    assert row["response_text"] == "A pot of rooibos, as always."
    assert row["divergence"] == found.candidates[0].divergence
    assert "A pot of rooibos" in found._repr_html_()


COMPARED = {
    **TOY,
    "server": {**TOY["server"], "doubtful": {"options": {"prior": 64}}},
    "plugins": {"settings": {"compare-scoring": {"with": "doubtful"}}},
}


def test_a_comparison_has_a_row_for_each_response(tmp_path):
    pytest.importorskip("pandas")
    settings = {**COMPARED, "store": {"url": f"sqlite:///{tmp_path}/s.db"}}
    with mindscore.attach(lambda: MESSAGES, MEMORIES, settings=settings) as mind:
        found = mind.score("compare").result()
    made = found.to_pandas()
    assert made["node_id"].tolist() == [it.node_id for it in found.comparison.responses]
    one, it = made.iloc[0], found.comparison.responses[0]
    assert (one["with"], one["with_other"]) == it.with_
    assert (one["without"], one["without_other"]) == it.without
    assert (one["difference"], one["noise"], one["text"]) == (it.difference, it.limit, it.text)
    page = found._repr_html_()
    for text in ("toy", "doubtful", it.text, "tea", found.comparison.memories[0].verdict):
        assert text in page, text


def test_a_comparison_that_failed_is_an_empty_frame_with_its_columns(tmp_path):
    pytest.importorskip("pandas")
    settings = {**TOY, "store": {"url": f"sqlite:///{tmp_path}/s.db"}}
    with mindscore.attach(lambda: MESSAGES, MEMORIES, settings=settings) as mind:
        found = mind.score("compare").result()
    assert "name the other model" in found.error
    made = found.to_pandas()
    assert (len(made), str(made["with_other"].dtype)) == (0, "float64")
    assert "name the other model" in found._repr_html_()


def test_a_result_without_findings_is_an_empty_frame_with_its_columns():
    pytest.importorskip("pandas")
    for options in ({}, {"finetune": True}):
        made = mindscore.score(MESSAGES, settings=TOY, **options).to_pandas()
        assert len(made) == 0
        assert "divergence" in made.columns


def test_without_pandas_the_error_says_how_to_get_it(monkeypatch):
    found = mindscore.score(MESSAGES, MEMORIES, settings=TOY)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match="pip install pandas"):
        found.to_pandas()


def test_importing_mindscore_imports_nothing_slow():
    code = (
        "import sys, mindscore; from mindscore import score; "
        "slow = {'torch', 'pandas', 'rich', 'jinja2'} & set(sys.modules); assert not slow, slow"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# -- in a notebook --------------------------------------------------------------------------------


class Elements(HTMLParser):
    """The elements and attributes of a piece of HTML, which must all be closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.found, self.attributes = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.found.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("options", [{}, {"full": True}, {"finetune": True}])
def test_no_text_of_a_conversation_becomes_html(options):
    bad = '<script>alert(1)</script><img src="x" onerror="y">'
    messages = [
        {"role": "system", "content": f"{bad} She drinks rooibos."},
        {"role": "user", "content": bad},
        {"role": "assistant", "content": f"{bad} A pot of rooibos."},
    ]
    memories = {bad: "She drinks rooibos.", "absent": "It stands nowhere."}
    found = mindscore.score(messages, memories, settings=TOY, **options)
    page = Elements(found._repr_html_())
    assert set(page.found) <= {"div", "table", "tr", "th", "td"}
    assert set(page.attributes) == {"style"}
    assert "absent" in found._repr_html_()


def test_the_table_takes_its_colours_from_the_page():
    page = mindscore.score(MESSAGES, MEMORIES, full=True, settings=TOY)._repr_html_()
    assert "rgba(8,120,200," in page
    assert set(re.findall(r"[^-]color:([^;\"]+)", page)) == {"inherit"}
    assert "#" not in page.replace(">#", ">")


def test_a_memory_that_was_not_scored_says_why():
    from dataclasses import replace

    found = mindscore.score(MESSAGES, MEMORIES, settings=TOY)
    stats = replace(found.stats, outcomes={"tea": Outcome("failed", "the GPU is on fire")})
    page = replace(found, scores={}, stats=stats)._repr_html_()
    assert "tea: the GPU is on fire" in page


def test_a_large_result_says_what_it_leaves_out():
    from dataclasses import replace

    found = mindscore.score(MESSAGES, MEMORIES, settings=TOY)
    row = found.scores["tea"].divergences
    many = {f"k{it}": MemoryScore(f"k{it}", 1.0, "incremental", row) for it in range(205)}
    assert "and 5 more memories" in replace(found, keys=(), scores=many)._repr_html_()


def test_a_screened_matrix_shows_its_receipt_and_what_was_measured():
    idle = {f"idle-{at}": f"Memo {at}: {at * 7919}." for at in range(40)}
    memories = {"tea": "She drinks rooibos from a blue pot.", **idle}
    lines = [{"role": "memory", "key": key, "content": it} for key, it in memories.items()]
    lines += [
        {"role": "user", "content": "What shall I drink?"},
        {"role": "assistant", "content": "Rooibos from a blue pot."},
    ]
    settings = {**TOY, "memory": {"screen": "on"}}
    found = mindscore.score(lines, full=True, settings=settings)
    assert found.error is None
    assert found.estimates == found.screen.estimates != ()
    html = found._repr_html_()
    assert html.count("<tr>") == 1 + len(found.scores) < len(memories)
    assert f"{len(found.screen.estimated)} estimated (≈)" in html
    assert "With 95 % confidence" in html
    assert found.to_pandas()["key"].nunique() == len(found.scores)
