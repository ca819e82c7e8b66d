"""What people see where standard output is no terminal: tables of 80 columns, safe to print."""

import re
import unicodedata

import pytest
from aiohttp import web

HOSTILE = {
    "escape": ("a\x1b[35;5mb", r"a\x1b[35;5mb"),
    "title": ("a\x1b]0;owned\x07b", r"a\x1b]0;owned\x07b"),
    "C1": ("a\x9b2Jb", r"a\x9b2Jb"),
    "bell and null": ("a\x07\x00b", r"a\x07\x00b"),
    "backspace": ("a\x08\x7fb", r"a\x08\x7fb"),
    "carriage return": ("a\rb", r"a\rb"),
    "new line": ("a\nb", r"a\nb"),
    "tab": ("a\tb", r"a\tb"),
    "line separator": ("a\u2028b\u2029c", r"a\u2028b\u2029c"),
    "bidi override": ("a\u202eb\u2066c", r"a\u202eb\u2066c"),
    "bidi marks": ("a\u200eb\u200fc\u061cd", r"a\u200eb\u200fc\u061cd"),
    "zero width": ("a\u200bb\ufeffc\u00add", r"a\u200bb\ufeffc\xadd"),
    "tag characters": ("a\U000e0041b", r"a\U000e0041b"),
    "private use": ("a\ue000b", r"a\ue000b"),
}
hostile = pytest.mark.parametrize(("text", "shown"), HOSTILE.values(), ids=HOSTILE)

MARKUP = {
    "a colour": "[red]key",
    "an end without a beginning": "key[/red]",
    "a link": "[link=http://attacker.example]key[/link]",
    "a bracket": "key[0]",
    "a backslash": "key\\[bold]",
    "a smiley": "a:cat:1",
}
marked = pytest.mark.parametrize("text", MARKUP.values(), ids=MARKUP)


def cells(line):
    """How many columns of a terminal a line takes."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in line
    )


def is_plain(text):
    """Whether a terminal shows every character of ``text`` as itself."""
    hidden = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
    return not [c for c in text if c != "\n" and unicodedata.category(c) in hidden]


def about(key, said="Green tea."):
    """A conversation with one memory and two responses."""
    return (
        {"role": "memory", "key": key, "content": "The user drinks green tea."},
        {"role": "user", "content": said},
        {"role": "assistant", "content": said},
        {"role": "user", "content": said},
        {"role": "assistant", "content": "Green tea."},
    )


@pytest.fixture
def many(write):
    """Twenty memories with keys of all lengths, thirty responses, one word in common each."""
    keys = [f"k{number}-" + "very-long-" * (number % 5) for number in range(17)]
    keys += ["日本語" * 20, "words " * 20 + "end", "é" * 40]
    memories = [
        {"role": "memory", "key": key, "content": f"word{number}"}
        for number, key in enumerate(keys)
    ]
    turns = [
        line
        for number in range(30)
        for line in (
            {"role": "user", "content": f"question {number} " * 9},
            {"role": "assistant", "content": f"word{number % 20} 日本語 " * 9},
        )
    ]
    return write(*memories, *turns)


# -- width ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_no_line_is_wider_than_the_screen(columns, score, cli, many, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    commands = [
        lambda: score(many, "--all"),
        lambda: score(many),
        lambda: score(many, "--full"),
        lambda: score(many, "--finetune"),
        lambda: cli("store", "list"),
        lambda: cli("plugins"),
    ]
    for run in commands:
        ran = run()
        assert ran.status == 0
        assert max(cells(line) for line in ran.out.splitlines()) <= columns


def test_all_of_a_wide_matrix_is_there_in_blocks(score, many):
    document = score(many, "--full", "--json").document
    out = score(many, "--full").out
    blocks = re.split(r"(?m)^memory ", out)[1:]
    heads = [re.findall(r"#(\d+)", block.splitlines()[0]) for block in blocks]
    assert [int(index) for head in heads for index in head] == [
        response["entry_idx"] for response in document["responses"]
    ]
    assert len(blocks) > 1
    rows = [[] for _ in document["memories"]]
    for head, block in zip(heads, blocks, strict=True):
        lines = [line.split()[-len(head) :] for line in block.splitlines()[1 : 1 + len(rows)]]
        for row, line in zip(rows, lines, strict=True):
            row += line
    assert rows == [[shown(value) for value in row] for row in document["signed"]]


def shown(signed):
    """How the matrix prints a value; what rounds to -0.0 has no sign."""
    return "·" if abs(signed) < 0.01 else "0.0" if abs(signed) < 0.05 else f"{signed:.1f}"


def test_the_caption_of_a_small_matrix_is_not_folded_to_its_width(score, talk):
    first = score(talk, "--full").out.splitlines()[0]
    assert first.startswith("Signed divergence")
    assert "response" in first


def test_a_number_that_needs_room_is_printed_whole(server, cli, numbered):
    def large(body):
        known = 101 in body["prompt"][: body["score_ranges"][0][0]]
        total = 0.0 if known else -1234567.25
        return web.json_response({"scores": [{"total_logprob": total}] * len(body["score_ranges"])})

    server.answer = large
    assert "1234567.2" in cli("score", numbered, "--full", *server.options).out
    assert "1234567.25" in cli("score", numbered, *server.options).out


def test_a_long_key_can_be_read_off_the_list_of_what_is_kept(score, cli, write):
    key = "_".join(f"part{number}" for number in range(20))
    score(write(*about(key)))
    lines = cli("store", "list").out.splitlines()[1:]
    assert key in "".join(line.removeprefix(" ").partition(" ")[0] for line in lines)


@pytest.mark.parametrize("responses", [1, 2, 9, 10, 11, 19, 23, 31])
def test_the_blocks_of_a_matrix_are_about_equally_wide(responses, score, write):
    turns = [
        {"role": role, "content": "Green tea."}
        for _ in range(responses)
        for role in ("user", "assistant")
    ]
    talk = write({"role": "memory", "key": "tea", "content": "Green tea."}, *turns)
    heads = re.findall(r"(?m)^memory .*$", score(talk, "--full").out)
    widths = [head.count("#") for head in heads]
    assert sum(widths) == responses
    assert max(widths) - min(widths) < len(widths)
    assert len(widths) == 1 or min(widths) > 1
    # As few blocks as there is room for.
    assert len(heads[0]) * (len(heads) - 1) < responses * 7 + 80


def test_the_further_lines_of_what_was_said_begin_below_its_first_word(score, write):
    said = " ".join(f"word{number}" for number in range(60))
    talk = write(
        {"role": "memory", "key": "tea", "content": said},
        {"role": "user", "content": "Which words?"},
        {"role": "assistant", "content": said},
    )
    lines = score(talk, "--finetune", "--set", "finetune.threshold=0").out.splitlines()
    [first] = [
        at for at, line in enumerate(lines) if line.startswith("  said ") and "word0" in line
    ]
    indent = lines[first].index("word0")
    further = [line for line in lines[first + 1 : first + 4] if "word" in line]
    assert len(further) >= 2
    assert {len(line) - len(line.lstrip()) for line in further} == {indent}


# -- contents -------------------------------------------------------------------------------------


def test_memories_are_printed_by_score_with_the_response_that_they_matter_most_to(score, talk):
    document = score(talk, "--json").document
    expected = sorted(
        ((it["score"], it["key"], it["divergences"]) for it in document["scores"]), reverse=True
    )
    printed = score(talk, "--all").out.splitlines()
    lines = [line for line in printed if line.split()[:1] in (["tea"], ["dog"])]
    for line, (value, key, responses) in zip(lines, expected, strict=True):
        most = max(responses, key=lambda it: it["divergence"])
        assert line.split()[:2] == [key, f"{value:.2f}"]
        assert f"#{most['entry_idx']} You" in line


def test_bars_are_as_long_as_their_share_of_the_largest_score(server, cli, write):
    talk = write(
        {"role": "memory", "key": "all", "content": "A", "token_ids": [101, 102]},
        {"role": "memory", "key": "half", "content": "B", "token_ids": [103]},
        {"role": "user", "content": "?", "token_ids": [5]},
        {"role": "assistant", "content": "A", "token_ids": [6, 101, 102, 103], "body": [1, 4]},
    )
    out = cli("score", talk, *server.options).out
    bars = {line.split()[0]: line.count("█") for line in out.splitlines() if "█" in line}
    assert bars == {"all": 2 * bars["half"], "half": bars["half"]}


def test_that_everything_was_skipped_comes_with_a_hint(score, talk):
    score(talk)
    ran = score(talk)
    assert (ran.status, ran.err) == (0, "")
    [line] = [line for line in ran.out.splitlines() if "not due" in line]
    assert line.startswith("2 not due")
    for word in ("--all", "tea", "dog"):
        assert word in line


def test_every_reason_to_skip_a_memory_is_said(score, write):
    talk = write(
        {"role": "memory", "key": "first", "content": "Green tea."},
        {"role": "user", "content": "What?"},
        {"role": "assistant", "content": "Green tea."},
        {"role": "memory", "key": "middle", "content": "x"},
        {"role": "user", "content": "once upon a time " * 20},
        {"role": "memory", "key": "last", "content": "x"},
    )
    out = score(talk).out
    assert re.search(r"(?m)^1 .*token_cutoff.*: last$", out)
    assert re.search(r"(?m)^1 no response.*: middle$", out)


def test_noise_that_is_not_measured_is_assumed_and_said_to_be(server, terminal, numbered):
    def small(body):
        missing = [it for it in (101, 102) if it not in body["prompt"][:4]]
        ends = [end for _, end in body["score_ranges"]]
        return web.json_response(
            {"scores": [{"total_logprob": -1 - 0.9 * len(missing)}] * len(ends)}
        )

    server.answer = small
    unmeasured = ["--set", "memory.noise_repeats=0", *server.options]
    out = terminal("score", numbered, "--full", *unmeasured).out
    assert "1 nat, assumed" in out
    assert "1 nat where too few show that, which is assumed" in out
    assert not re.findall(r"\x1b\[[0-9;]+m *(0\.9)", out[: out.index("Memories by score")])
    assert "0 beyond noise" in out
    measured = terminal("score", numbered, "--full", *server.options).out
    assert "assumed" not in measured
    assert re.findall(r"\x1b\[[0-9;]+m *(0\.9)", measured[: measured.index("Memories by score")])


@pytest.mark.parametrize("options", [[], ["--full"], ["--finetune"]], ids=" ".join)
def test_a_conversation_without_memories_is_said_to_hold_none(options, score, write):
    talk = write({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."})
    out = score(talk, *options).out
    assert out.count("holds no memories") == 1
    assert "--memories" in out


def test_a_row_that_failed_is_marked_as_not_measured(server, cli, numbered):
    well = server.answer

    def answer(body):
        """Fails without ``b``."""
        known = 102 in body["prompt"][: body["score_ranges"][0][0]]
        return well(body) if known else web.json_response({})

    server.answer = answer
    out = cli("score", numbered, "--full", *server.options).out
    rows = {words[0]: words[1:] for line in out.splitlines() if (words := line.split())}
    assert rows["a"] == ["2.0", "·"]
    assert rows["b"] == ["?", "?"]


def test_candidates_are_printed_with_what_was_said_before_and_what_is_said_without(score, talk):
    arguments = ["--finetune", "--set", "finetune.generate_alternates=true"]
    [candidate] = score(talk, "--json", *arguments).document["candidates"]
    out = score(talk, *arguments).out
    assert f"#3  {candidate['divergence']:.2f} nats" in out
    for text in ("Your dog is called Rex.", "And my dog?", "You drink green tea."):
        assert text in out
    assert candidate["alternate_text"].split()[0] in out.partition("without")[2]


def test_a_matrix_ends_with_the_ranking_of_its_memories_and_a_summary(score, talk):
    document = score(talk, "--full", "--json").document
    best = {
        key: max(row) for key, row in zip(document["memories"], document["matrix"], strict=True)
    }
    lines = score(talk, "--full").out.splitlines()
    at = lines.index("Memories by score")
    ranked = [line.split()[:3] for line in lines[at + 2 : at + 4]]
    expected = sorted(best, key=best.__getitem__, reverse=True)
    assert ranked == [
        [f"{place}", key, f"{best[key]:.2f}"] for place, key in enumerate(expected, start=1)
    ]
    assert at > max(number for number, line in enumerate(lines) if line.startswith("memory "))
    assert lines[-2].startswith("2 of 2 memories scored, ")
    assert lines[-1].startswith("toy: ")


@pytest.fixture
def column(server, write):
    """Eight memories, of which each does 1.0 to the one response, and the last 40."""
    memories = [
        {"role": "memory", "key": f"m{it}", "content": "x", "token_ids": [100 + it, 1]}
        for it in range(8)
    ]

    def answer(body):
        tokens = body["prompt"]
        missing = [it for it in range(8) if 100 + it not in tokens]
        total = -1.0 - sum(40.0 if it == 7 else 1.0 for it in missing)
        return web.json_response({"scores": [{"total_logprob": total}]})

    server.answer = answer
    asked = {"role": "user", "content": "?", "token_ids": [5, 1]}
    said = {"role": "assistant", "content": "A.", "token_ids": [6, 9, 1], "body": [1, 3]}
    return write(*memories, asked, said)


def test_what_most_memories_do_to_a_response_is_not_ranked_as_an_effect(column, server, cli):
    out = cli("score", column, *server.options).out
    rows = {words[0]: line for line in out.splitlines() if (words := line.split())}
    assert rows["m7"].count("█") == 20
    for number in range(7):
        assert "like most memories" in rows[f"m{number}"]
        assert "most have up to 3.00" in rows[f"m{number}"]
    assert "8 of 8 memories scored, 1 beyond noise and what most memories do" in out


def test_what_most_memories_do_to_a_response_has_no_colour(column, server, terminal):
    out = terminal("score", column, "--full", *server.options).out
    matrix = out[: out.index("Memories by score")]
    coloured = re.findall(r"\x1b\[[0-9;]+m *(\d+\.\d)", matrix)
    assert coloured == ["40.0"]
    assert len(re.findall(r"\b1\.0\b", matrix)) == 7


@pytest.mark.parametrize("options", [[], ["--full"], ["--finetune"]], ids=" ".join)
def test_a_failure_is_printed_once(options, cli, numbered, nobody):
    server = ["--set", "server.scorer=score", "--set", f"server.base_url={nobody}"]
    ran = cli("score", numbered, *options, *server, "--set", "server.max_attempts=1")
    assert ran.status == 1
    assert (ran.out + ran.err).count("cannot connect") == 1
    assert "cannot connect" in ran.error
    assert not re.search(r"(?m)^(memory|Signed)", ran.out)


# -- what texts and keys hold ---------------------------------------------------------------------


def printed_by_every_command(score, cli, talk):
    """Everything that any of the commands prints about a conversation."""
    loose = ["--set", "finetune.threshold=0", "--set", "finetune.window_fraction=1"]
    alternates = ["--set", "finetune.generate_alternates=true"]
    ran = {
        "score": score(talk),
        "skipped": score(talk),
        "matrix": score(talk, "--full"),
        "candidates": score(talk, "--finetune", *loose, *alternates),
        "nobody": score(talk, "--set", 'plugins.disabled=["memory-scoring"]'),
        "kept": cli("store", "list"),
        "unknown": score(talk, "--memory", "unknown"),
    }
    statuses = {name: it.status for name, it in ran.items()}
    assert statuses == {**dict.fromkeys(ran, 0), "nobody": 1, "unknown": 2}
    return {name: it.out + it.err for name, it in ran.items()}


@hostile
def test_what_a_key_hides_is_shown_escaped_everywhere(text, shown, score, cli, write):
    printed = printed_by_every_command(score, cli, write(*about(text)))
    for name, output in printed.items():
        assert is_plain(output)
        if name != "candidates":
            assert shown in output, name


@hostile
def test_what_a_text_hides_is_shown_escaped_everywhere(text, shown, score, cli, write):
    said = f"green {text} tea"
    printed = printed_by_every_command(score, cli, write(*about("tea", said)))
    for output in printed.values():
        assert is_plain(output)
    if "\n" not in text:
        assert f"green {shown} tea" in printed["candidates"]


@marked
def test_a_key_is_no_markup(text, score, cli, write):
    printed = printed_by_every_command(score, cli, write(*about(text)))
    for name, output in printed.items():
        if name != "candidates":
            # The longest may be cut or folded.
            assert text[:20] in output, name


@marked
def test_a_text_is_no_markup(text, score, cli, write):
    said = f"{text} Green tea."
    talk = write(
        {"role": "memory", "key": "tea", "content": said},
        {"role": "user", "content": "What?"},
        {"role": "assistant", "content": said},
        {"role": "user", "content": said},
    )
    printed = printed_by_every_command(score, cli, talk)
    assert text in printed["candidates"]
    # Cut to what there is room for.
    assert f"#1 {said}"[:15] in printed["score"]


@hostile
def test_what_a_server_says_is_shown_escaped(text, shown, server, cli, numbered):
    server.answer = lambda body: web.json_response({"error": f"green {text} tea"})
    ran = cli("score", numbered, *server.options)
    assert ran.status == 1
    assert is_plain(ran.out + ran.err)
    if not text.isprintable() and text.split() == [text]:
        assert f"green {shown} tea" in ran.error


def test_an_error_about_a_key_is_one_line_whatever_the_key(score, cli, write):
    key = "a\nb\x1b[35;5mc\u202ed"
    ran = score(write(*about(key)), "--memory", key + "!")
    assert ran.status == 2
    assert is_plain(ran.error)
    assert r"b\x1b[35;5mc\u202ed" in ran.error
    ran = cli("store", "forget", key)
    assert ran.status == 2
    assert is_plain(ran.error)


def test_an_error_about_a_file_is_one_line_whatever_its_name(cli, tmp_path):
    ran = cli("score", tmp_path / "a\nb\x1b[35;5mc.jsonl")
    assert ran.status == 2
    assert is_plain(ran.error)
    assert r"b\x1b[35;5mc.jsonl" in ran.error


# -- noise, hold ----------------------------------------------------------------------------------


@pytest.fixture
def unsteady(server):
    """A server whose answers for response 1 vary by 3 nats; ``a`` does 2 to it, ``b`` 40 to 3."""

    def answer(body):
        jitter, scores = 3.0 * (len(server.asked) % 2), []
        for start, _ in body["score_ranges"]:
            before = body["prompt"][:start]
            # The first response says 101.
            is_first = before.count(101) == (101 in before[:2])
            effect = 2.0 * (101 in before[:2]) - jitter if is_first else 40.0 * (102 in before[:4])
            scores.append({"total_logprob": effect - 50.0})
        return web.json_response({"scores": scores})

    server.answer = answer
    return server


def test_what_lies_within_the_noise_is_marked_and_not_ranked(unsteady, cli, numbered):
    document = cli("score", numbered, *unsteady.options, "--json").document
    by_key = {it["key"]: it["divergences"] for it in document["scores"]}
    assert {it["entry_idx"]: it["noise"] for it in by_key["a"]} == {1: 3.0, 3: 0.0}
    out = cli("score", numbered, *unsteady.options, "--all").out
    lines = [line for line in out.splitlines() if line.split()[:1] in (["a"], ["b"])]
    assert lines[0].split()[0] == "b"
    assert "within noise" in lines[1]
    assert "noise 3.00 nats" in lines[1]
    assert "█" not in lines[1]


def test_a_cell_within_the_noise_is_not_shown_as_an_effect(unsteady, cli, numbered):
    ran = cli("score", numbered, "--full", *unsteady.options, "--json")
    assert ran.document["noise"][0] == [3.0, 0.0]
    out = cli("score", numbered, "--full", *unsteady.options).out
    row = next(line for line in out.splitlines() if line.startswith("a "))
    assert row.split() == ["a", "·", "·"]
    assert "within noise" in out


def test_what_each_memory_does_alone_stands_in_a_table_of_its_own(score, write):
    twice = {"role": "memory", "content": "The user drinks rooibos tea in the evening."}
    talk = write(
        {**twice, "key": "one"},
        {**twice, "key": "copy"},
        {"role": "memory", "key": "cello", "content": "A cello was sold long ago."},
        {"role": "user", "content": "And?"},
        {"role": "assistant", "content": "rooibos tea in the evening"},
    )
    ran = score(talk, "--full", "--hold")
    assert ran.status == 0
    drop, hold = ran.out.split("Hold: what each memory does alone")
    assert "Signed divergence" in drop
    document = score(talk, "--full", "--hold", "--json").document
    values = dict(zip(document["memories"], document["hold_signed"], strict=True))
    for key in ("one", "copy", "cello"):
        line = next(line for line in hold.splitlines() if line.startswith(f"{key} "))
        assert line.split()[1] == shown(values[key][0])
    assert values["one"][0] > 10


def test_two_memories_that_hide_each_other_are_named(server, cli, numbered):
    def either(body):
        scores = [
            {"total_logprob": -1.0 if {101, 102} & set(body["prompt"][:start]) else -30.0}
            for start, _ in body["score_ranges"]
        ]
        return web.json_response({"scores": scores})

    server.answer = either
    out = cli("score", numbered, "--full", "--hold", *server.options).out
    assert "b and a hide each other" in out or "a and b hide each other" in out
    document = cli("score", numbered, "--full", "--hold", *server.options, "--json").document
    # The second response needs neither: the first one says what they say.
    [pair] = document["redundant"]
    assert sorted(pair["keys"]) == ["a", "b"]
    assert pair["node_ids"] == [document["responses"][0]["node_id"]]


def test_two_memories_that_need_each_other_are_named(server, cli, numbered):
    def both(body):
        scores = [
            {"total_logprob": -1.0 if {101, 102} <= set(body["prompt"][:start]) else -30.0}
            for start, _ in body["score_ranges"]
        ]
        return web.json_response({"scores": scores})

    server.answer = both
    ran = cli("score", numbered, "--full", "--hold", *server.options, "--json")
    [need] = ran.document["interactions"]
    assert (sorted(need["keys"]), need["kind"]) == (["a", "b"], "need")
    assert [entry["interaction"] for entry in need["entries"]] == [-29.0] * len(need["entries"])
    shown = cli("score", numbered, "--full", "--hold", *server.options).out
    numbers = ", ".join(f"#{entry['entry_idx']}" for entry in need["entries"])
    line = f"need each other: either one removed costs what both do, for {numbers}"
    assert line in " ".join(shown.split())
