"""``mindscore compare``: two models, on a terminal, as JSON and on a page."""

import json
import re

import pytest

from mindhooks import ScorerError, ScorerUnavailable
from mindscore.scorers.toy import ToyScorer

TALK = [
    {"role": "memory", "key": "tea", "content": "The user drinks green tea."},
    {"role": "memory", "key": "dog", "content": "The user has a dog called Rex."},
    {"role": "user", "content": "What do I drink?"},
    {"role": "assistant", "content": "You drink green tea.", "id": "drink"},
    {"role": "user", "content": "And my dog?"},
    {"role": "assistant", "content": "Your dog is called Rex.", "id": "pet"},
]


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "compare.toml"
    file.write_text('[server]\nscorer = "toy"\n[server.doubtful.options]\nprior = 640\n')
    return file


@pytest.fixture
def compare(cli, config):
    """Runs ``mindscore compare`` of the toy, beside a more doubtful one if no other is named."""

    def run(*arguments, other="doubtful"):
        named = ["--with", other] if other else []
        return cli("compare", *arguments, *named, "--config", config)

    return run


@pytest.fixture
def many(write):
    """A folder of eight conversations, in which the same memories are needed."""

    def make(count=8):
        for number in range(count):
            again = " again" * number
            asked = {"role": "user", "content": f"I ask{again} for the {number}th time."}
            file = write(*TALK[:2], asked, *TALK[2:], name=f"many-{number}.jsonl")
            folder = file.parent / "many"
            folder.mkdir(exist_ok=True)
            file.rename(folder / file.name)
        return folder

    return make


def test_responses_and_memories_are_shown_under_both(compare, talk):
    ran = compare(talk)
    assert (ran.status, ran.err) == (0, "")
    assert "#1 You drink" in ran.out
    [line] = [it for it in ran.out.splitlines() if it.startswith(" tea ")]
    assert "less on #1" in line
    assert "doubtful: 2 of 2 responses differ by more than noise" in ran.out
    assert "intervals are not known: there are too few responses" in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80


def test_one_json_document_has_all_of_it(compare, talk):
    found = compare(talk, "--json").document
    head = {"command", "model", "other", "unit", "responses", "memories", "mean", "need"}
    assert found.keys() == {*head, "remarks", "stats"}
    assert (found["command"], found["model"], found["other"]) == ("compare", "toy", "doubtful")
    assert [it["entry_idx"] for it in found["responses"]] == [1, 3]
    assert [it["node_id"] for it in found["responses"]] == ["drink", "pet"]
    one = next(it for it in found["responses"] if it["parts_at"])
    assert one["parts_at"].keys() == {"token", "text", "logprobs"}
    assert one["other_text"] is None
    total = sum(it["with"][1] - it["with"][0] for it in found["responses"])
    assert found["mean"] == {"difference": pytest.approx(total / 2), "low": None, "high": None}
    tea = next(it for it in found["memories"] if it["key"] == "tea")
    assert tea["difference"] == pytest.approx(tea["needs"][1] - tea["needs"][0])
    [less] = tea["less_on"]
    assert (less["entry_idx"], less["needs"][0] > less["needs"][1]) == (1, True)
    assert tea["verdict"].startswith("less")


def test_several_conversations_are_one_comparison_with_intervals_over_them(compare, many):
    found = compare(many(), "--json").document
    assert len(found["responses"]) == 16
    assert len({it["conversation"] for it in found["responses"]}) == 8
    assert found["need"]["high"] < 0
    assert {it["key"]: it["verdict"] for it in found["memories"]}["tea"] == "less"
    ran = compare(many())
    assert "intervals are over 8 conversations" in ran.out
    assert re.search(r"1#(\d) is response #\1 of conversation 1, in the order", ran.out)
    assert "1#2" in ran.out


def test_both_models_are_loaded_once_for_all_conversations(compare, many, monkeypatch):
    from mindscore.flows import compare as flow

    loaded = []
    load = flow.load_scorer

    async def counted(table):
        loaded.append(table)
        return await load(table)

    monkeypatch.setattr(flow, "load_scorer", counted)
    assert compare(many(3)).status == 0
    assert len(loaded) == 1


def test_one_of_a_file_of_several_is_selected(compare, write):
    file = write(*TALK)
    assert len(compare(file, "--select", "1", "--json").document["responses"]) == 2


def test_a_page_is_written_for_its_owner_alone(compare, talk, tmp_path):
    page = tmp_path / "out.html"
    assert compare(talk, "--say", "--html", page).status == 0
    text = page.read_text()
    assert "toy beside doubtful" in text
    assert "What doubtful says" in text
    assert page.stat().st_mode & 0o077 == 0


def test_memories_are_left_alone_if_only_responses_are_asked_for(compare, talk):
    found = compare(talk, "--responses-only", "--json").document
    assert (found["memories"], found["stats"]["calls"]) == ([], 4)


def test_the_other_model_may_be_named_in_the_configuration(compare, talk, config):
    config.write_text(
        f'{config.read_text()}[plugins.settings.compare-scoring]\nwith = "doubtful"\n'
    )
    assert compare(talk, "--json", other=None).document["other"] == "doubtful"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--with names the other model"),
        (("--with", "x", "--memories-anywhere"), "--memories-anywhere goes with"),
        (("--with", "x", "--html", "nowhere/a.html"), "there is no folder nowhere"),
    ],
)
def test_wrong_usage_is_refused_before_anything_is_measured(compare, talk, arguments, said):
    ran = compare(talk, *arguments, other=None)
    assert ran.status == 2
    assert said in ran.error


def test_an_adapter_that_the_scorer_does_not_load_is_no_second_model(compare, talk, tmp_path):
    """Its numbers would be those of the first model, and read as if nothing was learnt."""
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    ran = compare(talk, "--json", other=tmp_path / "adapter")
    assert (ran.status, ran.document["responses"]) == (1, [])
    assert "server.scorer = 'toy' loads no adapter" in ran.error


def test_a_transcript_is_not_overwritten_by_the_page(compare, talk):
    before = talk.read_bytes()
    ran = compare(talk, "--html", talk)
    assert (ran.status, talk.read_bytes()) == (2, before)


def test_a_failure_is_a_document_and_an_error_too(compare, talk, config):
    config.write_text(config.read_text().replace("640", "-1"))
    ran = compare(talk, "--json")
    assert ran.status == 1
    assert (ran.document["responses"], ran.document["mean"]) == ([], None)
    assert "the other model, 'doubtful'" in ran.document["stats"]["error"]
    assert "the other model, 'doubtful'" in ran.error


def test_a_run_that_fails_as_a_whole_blames_no_memory(compare, talk, config):
    config.write_text(config.read_text().replace("640", "-1"))
    ran = compare(talk)
    assert ran.status == 1
    assert "failed" not in ran.out


def test_of_many_that_fail_alike_only_two_are_tried(compare, many, config):
    config.write_text(config.read_text().replace("640", "-1"))
    ran = compare(many(), "--json")
    assert ran.status == 1
    assert len(ran.err.splitlines()) == 2
    error = ran.document["stats"]["error"]
    assert error.startswith("2 of 8 conversations failed, and 6 were not tried; ")


@pytest.fixture
def second(monkeypatch):
    """Has every other model be one toy, whose methods a test may replace."""
    from mindscore.flows import compare as flow

    scorer = ToyScorer()

    async def load(table):
        return scorer

    monkeypatch.setattr(flow, "load_scorer", load)
    return scorer


@pytest.mark.parametrize("noisy", [False, True])
def test_a_noise_that_nobody_has_measured_is_marked_as_json_too(compare, talk, second, noisy):
    second.noisy = noisy
    found = compare(talk, "--set", "memory.noise_repeats=0", "--json").document["responses"]
    assert {it["noise_assumed"] for it in found} == {noisy}
    assert {it["noise"] for it in found} == {1.0 if noisy else 0.01}


def test_conversations_that_fail_alike_by_what_they_hold_hold_up_no_others(
    compare, many, second, monkeypatch
):
    async def score(prompts):
        if len(tried) < 2:
            tried.append(prompts)
            raise ScorerError("what is that?")
        return await ToyScorer.score(second, prompts)

    tried = []
    monkeypatch.setattr(second, "score", score)
    ran = compare(many(5), "--json")
    assert ran.status == 1
    assert ran.document["stats"]["error"].startswith("2 of 5 conversations failed; ")
    assert len({it["conversation"] for it in ran.document["responses"]}) == 3


def test_after_two_conversations_without_an_answer_no_others_are_tried(
    compare, many, second, config, monkeypatch
):
    async def score(prompts):
        raise ScorerUnavailable("no answer")

    config.write_text(config.read_text().replace('"toy"', '"toy"\nmax_attempts = 1'))
    monkeypatch.setattr(second, "score", score)
    error = compare(many(5), "--json").document["stats"]["error"]
    assert error.startswith("2 of 5 conversations failed, and 3 were not tried; ")


def test_conversations_in_the_unit_of_fewer_are_left_out_and_counted(
    compare, many, second, monkeypatch
):
    """A word of the third alone is another token of the other model's."""

    async def tokenize(text):
        ids = await ToyScorer.tokenize(second, text)
        return [*ids, 7] if " 0th " in text else ids

    monkeypatch.setattr(second, "tokenize", tokenize)
    found = compare(many(4), "--json").document
    assert (found["unit"], len({it["conversation"] for it in found["responses"]})) == ("nats", 3)
    assert "1 conversation is left out: compared in nats per byte" in found["remarks"]


def test_a_file_of_a_folder_that_cannot_be_read_is_named_and_the_others_are_compared(compare, many):
    folder = many(2)
    (folder / "broken.jsonl").write_text(json.dumps(TALK[0]) + "\n{\n")
    ran = compare(folder, "--json")
    assert ran.status == 1
    assert len(ran.document["responses"]) == 4
    assert "broken.jsonl" in ran.err


def test_what_is_not_compared_is_among_the_remarks(compare, many, write):
    folder = many(2)
    (folder / "copy.jsonl").write_text((folder / "many-0.jsonl").read_text())
    (folder / "short.jsonl").write_text(json.dumps(TALK[2]) + "\n")
    (folder / "notes.txt").write_text("Buy milk.")
    found = compare(folder, "--json").document
    assert len(found["responses"]) == 4
    assert found["remarks"] == [
        "1 conversation left out: without a response",
        "1 conversation left out: found twice",
        "1 file of no known format",
    ]


def test_config_show_has_the_tables_of_other_servers(cli, config):
    assert "[server.doubtful.options]\nprior = 640" in cli("config", "show", "--config", config).out


def test_run_takes_it_as_any_plugin_s_command(cli, talk, config):
    option = "plugins.settings.compare-scoring.with=doubtful"
    ran = cli("run", "compare", talk, "--config", config, "--set", option)
    assert ran.status == 0
    assert "less on #3" in ran.out


# -- one model twice ------------------------------------------------------------------------------


def test_a_server_that_does_not_heed_the_model_is_said_to_be_one_model(
    cli, config, talk, tmp_path, monkeypatch
):
    """On the terminal, in the document and on the page."""
    page = tmp_path / "page.html"
    given = ("compare", talk, "--with", "another-model", "--config", config)
    ran = cli(*given, "--html", page)
    said = "toy and another-model give every response the same log-probability, to the last digit"
    assert (ran.status, said in " ".join(ran.out.split())) == (0, True)
    assert said in page.read_text("utf-8")
    document = cli(*given, "--json").document
    assert [said in it for it in document["remarks"]] == [True]


def test_equal_differences_have_no_interval_and_say_so(cli, config, write, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    talk = write(*TALK[:2], *[{**it, "id": None} for it in TALK[2:4] * 6])
    given = ("compare", talk, "--with", "toy", "--config", config)
    ran = cli(*given)
    assert "responses with all memories: +0.00 nats on average (all equal): no clear" in ran.out
    assert "intervals are" not in ran.out
    assert cli(*given, "--json").document["mean"] == {
        "difference": 0.0,
        "low": None,
        "high": None,
        "all_equal": True,
    }


@pytest.mark.parametrize("width", [48, 60, 80])
def test_on_a_narrow_terminal_no_number_is_cut(compare, many, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    found = compare(many(), "--json").document
    [_, table, *_] = re.split("Responses: |Memories: ", compare(many()).out)
    words = table.split()
    for it in found["responses"]:
        assert {f"{value:.1f}" for value in it["with"]} <= {*words}
        needs = (a - b for a, b in zip(it["with"], it["without"], strict=True))
        assert {f"{value:.1f}" for value in needs} <= {*words}
