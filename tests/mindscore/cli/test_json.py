"""The documents that ``--json`` prints: section 8 of the contract."""

import pytest

SPENT = {
    "calls": int,
    "prompt_tokens": int,
    "computed_tokens": int,
    "seconds": float,
    "error": type(None),
}
FINETUNE = {
    "responses_considered": int,
    "above_threshold": int,
    "threshold": float,
    "max_divergence": float,
}


def kinds(table):
    return {key: type(value) for key, value in table.items()}


@pytest.mark.parametrize("options", [[], ["--full"], ["--finetune"]])
def test_standard_output_is_one_document_that_ends_in_a_newline(options, score, talk):
    ran = score(talk, "--json", *options)
    assert isinstance(ran.document, dict)
    assert ran.out.endswith("}\n")
    assert ran.err == ""


def test_a_scoring_has_these_keys_of_these_types(score, talk):
    document = score(talk, "--json").document
    assert kinds(document) == {"command": str, "model": str, "scores": list, "stats": dict}
    assert (document["command"], document["model"]) == ("score", "toy")
    assert kinds(document["stats"]) == SPENT
    for entry in document["scores"]:
        assert kinds(entry) == {
            "key": str,
            "status": str,
            "score": float,
            "error": type(None),
            "divergences": list,
        }
        for response in entry["divergences"]:
            assert kinds(response) == {
                "entry_idx": int,
                "node_id": str,
                "divergence": float,
                "signed": float,
            }


@pytest.mark.parametrize(
    ("repeats", "noise"), [("auto", {"noise": 0.0}), ("1", {"noise": 0.0}), ("0", {})]
)
def test_a_scoring_holds_exactly_this(repeats, noise, server, cli, numbered):
    options = [*server.options, "--set", f"memory.noise_repeats={repeats}"]
    document = cli("score", numbered, "--json", *options).document
    assert document.pop("stats").pop("seconds") >= 0
    assert document == {
        "command": "score",
        "model": "smollm2",
        "scores": [
            {
                "key": key,
                "status": "scored",
                "score": 2.0,
                "error": None,
                "divergences": [
                    {"entry_idx": at, "node_id": f"r{at}", "divergence": it, "signed": it, **noise}
                    for at, it in cells
                ],
            }
            for key, cells in [("a", [(1, 2.0), (3, 0.0)]), ("b", [(1, 0.0), (3, 2.0)])]
        ],
    }


def test_a_memory_that_was_not_scored_has_no_score_and_no_divergences(score, talk):
    score(talk)
    found = score(talk, "--json").document["scores"]
    nothing = {"status": "not-due", "score": None, "error": None, "divergences": []}
    assert [it.pop("key") for it in found] == ["tea", "dog"]
    for entry in found:
        assert {it: entry[it] for it in nothing} == nothing
        assert entry.keys() - nothing == {"last_score", "last_scored"}


def test_memories_printed_inside_messages_are_candidates_like_any_other(score, write):
    tea, y = {"text": "Tea!", "key": "tea"}, {"text": "x", "key": "y"}
    talk = write(
        {"role": "system", "content": [{"text": "Help. "}, tea]},
        {"role": "memory", "key": "dog", "content": "The user has a dog called Rex."},
        {"role": "user", "content": [{"text": "What? "}, tea, y]},
        {"role": "assistant", "content": "Green tea."},
        {"role": "user", "content": "one two three four five six seven eight"},
    )
    entries = score(talk, "--json").document["scores"]
    assert [entry["key"] for entry in entries] == ["tea", "dog", "y"]
    assert [entry["status"] for entry in entries] == ["scored"] * 3


def test_a_matrix_has_these_keys_of_these_types(score, talk):
    document = score(talk, "--json", "--full").document
    assert kinds(document) == {
        "command": str,
        "model": str,
        "memories": list,
        "responses": list,
        "matrix": list,
        "signed": list,
        "stats": dict,
    }
    assert (document["command"], document["model"]) == ("score-full", "toy")
    assert document["memories"] == ["tea", "dog"]
    assert document["responses"] == [
        {"entry_idx": 1, "node_id": "drink"},
        {"entry_idx": 3, "node_id": "pet"},
    ]
    assert kinds(document["stats"]) == SPENT
    for values in (document["matrix"], document["signed"]):
        assert [[type(value) for value in row] for row in values] == [[float, float]] * 2


def test_signed_values_stand_beside_the_matrix_and_may_be_below_zero(score, talk):
    document = score(talk, "--json", "--full").document
    assert document["signed"][0][1] < 0
    assert document["matrix"] == [[max(0.0, value) for value in row] for row in document["signed"]]


def test_the_divergences_of_a_scoring_are_what_the_matrix_says_of_the_same_prompts(score, talk):
    rows = [
        [response["signed"] for response in entry["divergences"]]
        for entry in score(talk, "--json").document["scores"]
    ]
    assert rows == score(talk, "--json", "--full").document["signed"]


def test_a_score_is_the_largest_of_its_divergences(score, talk):
    for entry in score(talk, "--json").document["scores"]:
        values = [response["divergence"] for response in entry["divergences"]]
        assert len(values) == 2
        assert entry["score"] == max(values) > 0


def test_a_response_before_the_memory_is_0_and_one_that_was_not_measured_is_null(
    server, cli, write
):
    talk = write(
        {"role": "user", "content": "one?", "token_ids": [5, 1]},
        {"role": "assistant", "content": "One", "token_ids": [6, 101, 1], "body": [1, 3]},
        {"role": "memory", "key": "a", "content": "A", "token_ids": [7]},
        {"role": "memory", "key": "b", "content": "B", "token_ids": [8]},
        {"role": "assistant", "content": "", "token_ids": [6, 1], "body": [1, 1]},
        {"role": "user", "content": "two?", "token_ids": [5, 1]},
        {"role": "assistant", "content": "Two", "token_ids": [6, 7, 8, 1], "body": [1, 4]},
    )
    well = server.answer

    def answer(body):
        """Fails without ``b``."""
        fails = 8 not in body["prompt"][: body["score_ranges"][-1][0]]
        return well({**body, "score_ranges": []} if fails else body)

    server.answer = answer
    document = cli("score", talk, "--json", "--full", *server.options).document
    assert [response["entry_idx"] for response in document["responses"]] == [1, 4, 6]
    assert document["matrix"] == [[0.0, None, 2.0], [None, None, None]]
    assert document["signed"] == [[0.0, None, 2.0], [None, None, None]]
    assert document["noise"] == [[0.0, None, 0.0], [None, None, None]]


# Noise and holds are there where they were measured, and the keys are not where they weren't:
# the tests above, of the same commands without the options, have every key.

NOISE = ["--set", "memory.noise_repeats=2"]


def test_where_noise_was_measured_each_divergence_of_a_scoring_has_it(score, talk):
    for entry in score(talk, "--json", *NOISE).document["scores"]:
        assert [response.pop("noise") for response in entry["divergences"]] == [0.0, 0.0]
        for response in entry["divergences"]:
            assert response.keys() == {"entry_idx", "node_id", "divergence", "signed"}


def test_where_noise_was_measured_it_stands_beside_the_matrix(score, talk):
    plain = score(talk, "--json", "--full").document
    document = score(talk, "--json", "--full", *NOISE).document
    assert document.pop("noise") == [[0.0, 0.0], [0.0, 0.0]]
    assert document.keys() == plain.keys()
    assert document["signed"] == plain["signed"]
    assert document["stats"]["calls"] == plain["stats"]["calls"] + 2


def test_where_noise_was_measured_a_candidate_has_it(score, talk):
    [plain] = score(talk, "--json", "--finetune").document["candidates"]
    [candidate] = score(talk, "--json", "--finetune", *NOISE).document["candidates"]
    assert candidate == {**plain, "noise": 0.0}


HOLDS = pytest.mark.parametrize(
    "hold", [["--hold"], ["--set", "plugins.settings.memory-scoring.hold=true"]]
)


@HOLDS
def test_what_each_memory_does_alone_stands_beside_the_matrix(hold, score, talk):
    plain = score(talk, "--json", "--full").document
    document = score(talk, "--json", "--full", *hold).document
    assert document.keys() == plain.keys() | {"hold", "hold_signed", "redundant", "interactions"}
    assert {key: document[key] for key in plain if key != "stats"} == {
        key: it for key, it in plain.items() if key != "stats"
    }
    for values in (document["hold"], document["hold_signed"]):
        assert [[type(value) for value in row] for row in values] == [[float, float]] * 2
    signed = document["hold_signed"]
    assert document["hold"] == [[max(0.0, value) for value in row] for row in signed]
    # Each is of use to its own response.
    assert min(signed[0][0], signed[1][1]) > 1 > max(signed[0][1], signed[1][0])
    assert document["redundant"] == document["interactions"] == []


@HOLDS
def test_two_memories_that_say_the_same_are_a_redundant_pair(hold, score, write):
    talk = write(
        {"role": "memory", "key": "one", "content": "Tea!"},
        {"role": "memory", "key": "two", "content": "Tea!"},
        {"role": "memory", "key": "other", "content": "Rex is a dog."},
        {"role": "user", "content": "Name a drink"},
        {"role": "assistant", "content": "Tea", "id": "drink"},
    )
    document = score(talk, "--json", "--full", *hold).document
    assert document["redundant"] == [{"keys": ["one", "two"], "node_ids": ["drink"]}]
    [interaction] = document["interactions"]
    assert (interaction["keys"], interaction["kind"]) == (["one", "two"], "hide")
    [entry] = interaction["entries"]
    assert (entry["entry_idx"], entry["node_id"]) == (1, "drink")
    one, two, _ = (row[0] for row in document["signed"])
    assert entry["apart"] == pytest.approx(one + two)
    assert entry["together"] - entry["apart"] == pytest.approx(entry["interaction"])
    assert entry["interaction"] > 10


def test_a_hold_that_was_not_measured_is_null_and_the_matrix_keeps_its_row(server, cli, write):
    lines = [
        {"role": "memory", "key": key, "content": key, "token_ids": [token]}
        for key, token in [("a", 7), ("b", 8), ("c", 9)]
    ]
    said = {"role": "assistant", "content": "All", "token_ids": [6, 7, 8, 9, 1], "body": [1, 5]}
    well = server.answer

    def answer(body):
        """Fails with ``b`` alone."""
        fails = body["prompt"][0] == 8 and body["prompt"][1] == 6
        return well({**body, "score_ranges": []} if fails else body)

    server.answer = answer
    ran = cli("score", write(*lines, said), "--json", "--full", "--hold", *server.options)
    assert ran.status == 1
    document = ran.document
    assert document["matrix"] == document["signed"] == [[2.0]] * 3
    assert document["hold"] == document["hold_signed"] == [[2.0], [None], [2.0]]
    error = document["stats"]["error"]
    assert error.startswith("1 of 3 memories failed; b: alone: ")


@pytest.mark.parametrize(("most", "status"), [(0, "scored"), (26, "scored"), (25, "left-out")])
def test_a_memory_that_does_not_fit_in_the_tokens_is_left_out(most, status, server, cli, numbered):
    options = [*server.options, "--set", "memory.noise_repeats=0"]
    limit = ["--set", f"plugins.settings.memory-scoring.max_tokens={most}"]
    ran = cli("score", numbered, "--json", "--memory", "b", *options, *limit)
    assert ran.status == 0
    [entry] = ran.document["scores"]
    assert entry["status"] == status
    if status == "left-out":
        assert entry == {
            "key": "b",
            "status": "left-out",
            "score": None,
            "error": None,
            "divergences": [],
        }
        assert server.asked == []
    assert ran.document["stats"]["prompt_tokens"] == (26 if status == "scored" else 0)


def test_candidates_have_these_keys_of_these_types(score, talk):
    document = score(talk, "--json", "--finetune").document
    assert kinds(document) == {"command": str, "model": str, "candidates": list, "stats": dict}
    assert (document["command"], document["model"]) == ("score-finetune", "toy")
    assert kinds(document["stats"]) == SPENT | FINETUNE
    [candidate] = document["candidates"]
    assert kinds(candidate) == {
        "entry_idx": int,
        "node_id": str,
        "divergence": float,
        "response_text": str,
        "prior_context": str,
        "context_ids": list,
        "bare_context_ids": list,
        "continuation_ids": list,
        "alternate_text": type(None),
        "alternate_ids": type(None),
        "timestamp_ns": int,
    }


def test_a_candidate_holds_exactly_this(server, cli, numbered):
    document = cli("score", numbered, "--json", "--finetune", *server.options).document
    [candidate] = document["candidates"]
    prior = candidate.pop("prior_context")
    assert prior.index("assistant") < prior.index("One.") < prior.index("user")
    assert prior.index("user") < prior.index("two?")
    assert candidate == {
        "entry_idx": 3,
        "node_id": "r3",
        "divergence": 2.0,
        "response_text": "Two.",
        "context_ids": [101, 1, 102, 1, 5, 1, 6, 101, 1, 5, 1, 6],
        "bare_context_ids": [5, 1, 6, 101, 1, 5, 1, 6],
        "continuation_ids": [102, 1],
        "alternate_text": None,
        "alternate_ids": None,
        "timestamp_ns": 1772532000_123456789,
        "noise": 0.0,
    }
    assert document["stats"].pop("seconds") >= 0
    assert document["stats"] == {
        "responses_considered": 1,
        "above_threshold": 1,
        "threshold": 1.0,
        "max_divergence": 2.0,
        "calls": 3,
        "prompt_tokens": 9 + 9 + 5,
        "computed_tokens": None,
        "error": None,
    }


def test_an_alternate_is_text_and_ids(score, talk):
    options = ["--set", "finetune.generate_alternates=true"]
    [candidate] = score(talk, "--json", "--finetune", *options).document["candidates"]
    assert isinstance(candidate["alternate_text"], str)
    assert candidate["alternate_ids"]
    assert all(isinstance(token, int) for token in candidate["alternate_ids"])


@pytest.mark.parametrize(
    ("options", "calls", "tokens", "baseline"),
    [([], 3, 14 + 12 + 12, 14), (["--full"], 3, 14 + 12 + 12, 14), (["--finetune"], 2, 9 + 5, 9)],
)
@pytest.mark.parametrize(("repeats", "more"), [("auto", 1), (0, 0), (3, 3)])
def test_calls_and_tokens_are_those_that_the_server_got(
    options, calls, tokens, baseline, repeats, more, server, cli, numbered
):
    noise = ["--set", f"memory.noise_repeats={repeats}"]
    ran = cli("score", numbered, "--json", *options, *noise, *server.options)
    stats = ran.document["stats"]
    calls, tokens = calls + more, tokens + more * baseline
    assert (stats["calls"], stats["prompt_tokens"]) == (calls, tokens)
    assert len(server.asked) == calls
    assert sum(len(body["prompt"]) for body in server.asked) == tokens


@pytest.mark.parametrize("options", [[], ["--full"], ["--finetune"]])
def test_computed_tokens_are_null_where_the_server_does_not_say(options, server, cli, numbered):
    stats = cli("score", numbered, "--json", *options, *server.options).document["stats"]
    assert stats["computed_tokens"] is None


@pytest.mark.parametrize("options", [[], ["--full"], ["--finetune"]])
def test_computed_tokens_are_null_where_a_server_that_does_not_say_has_failed(
    options, server, cli, numbered
):
    well = server.answer
    server.answer = lambda body: well({**body, "score_ranges": []})
    ran = cli("score", numbered, "--json", *options, *server.options)
    assert ran.status == 1
    assert ran.document["stats"]["computed_tokens"] is None


@pytest.mark.parametrize("options", [[], ["--full"], ["--finetune"]])
def test_the_toy_says_how_many_tokens_it_computed(options, score, talk):
    stats = score(talk, "--json", *options).document["stats"]
    assert stats["computed_tokens"] == stats["prompt_tokens"] > 0


@pytest.mark.parametrize(
    ("options", "plugin", "keys"),
    [
        ([], "memory-scoring", {"command", "model", "scores", "stats"}),
        (
            ["--full"],
            "memory-scoring",
            {"command", "model", "memories", "responses", "matrix", "signed", "stats"},
        ),
        (["--finetune"], "finetune-scoring", {"command", "model", "candidates", "stats"}),
    ],
)
def test_a_document_has_the_same_keys_when_nobody_took_the_command(
    options, plugin, keys, score, talk
):
    ran = score(talk, "--json", *options, "--set", f'plugins.disabled=["{plugin}"]')
    assert ran.status == 1
    assert ran.document.keys() == keys
    wanted = SPENT | FINETUNE if options == ["--finetune"] else SPENT
    assert ran.document["stats"].keys() == wanted.keys()


def test_a_matrix_that_nobody_measured_is_null_everywhere(score, talk):
    options = ["--full", "--set", 'plugins.disabled=["memory-scoring"]']
    document = score(talk, "--json", *options).document
    assert document["matrix"] == document["signed"] == [[None, None], [None, None]]


def test_keys_and_texts_come_through_unchanged(score, write):
    key, said = "a\n\t\x1b[31m\u202e\u2028[red]:cat: é 日本 \U0001f431", 'Said "this"\r\n\x00\\'
    talk = write(
        {"role": "memory", "key": key, "content": said},
        {"role": "user", "content": "What?"},
        {"role": "assistant", "content": said},
    )
    assert [it["key"] for it in score(talk, "--json").document["scores"]] == [key]
    assert score(talk, "--json", "--full").document["memories"] == [key]
    options = ["--set", "finetune.threshold=0", "--set", "finetune.window_fraction=1"]
    [candidate] = score(talk, "--json", "--finetune", *options).document["candidates"]
    assert candidate["response_text"] == said


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_the_document_is_utf_8_whatever_the_locale_says(encoding, terminal, write):
    talk = write(
        {"role": "memory", "key": "日本", "content": "Tea."},
        {"role": "user", "content": "What?"},
        {"role": "assistant", "content": "Tea."},
    )
    options = ["--json", "--set", "server.scorer=toy"]
    ran = terminal("score", talk, *options, out=False, err=False, PYTHONIOENCODING=encoding)
    assert (ran.status, ran.err) == (0, "")
    assert [it["key"] for it in ran.document["scores"]] == ["日本"]
