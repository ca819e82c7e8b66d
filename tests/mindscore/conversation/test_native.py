"""The native transcript format: section 7."""

import asyncio
import base64
import gzip
import json
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from mindhooks import Image, MindhooksError, Part, Role
from mindscore._util.errors import TranscriptError
from mindscore.conversation.native import read_transcript
from mindscore.scorers.tokenizer import FileTokenizer
from mindscore.scorers.toy import ToyScorer

KEEP_ALL = frozenset().__contains__


@pytest.fixture
def write(tmp_path):
    """Write a transcript: bytes as they are, else one line of JSON for each dict."""

    def write(*lines, name="talk.jsonl", ending="\n", before=b""):
        file = tmp_path / name
        encoded = [it if isinstance(it, bytes) else json.dumps(it).encode() for it in lines]
        file.write_bytes(before + b"".join(line + ending.encode() for line in encoded))
        return file

    return write


@pytest.fixture
def read(write):
    """Write and read a transcript."""
    return lambda *lines, **options: read_transcript(write(*lines, **options))


@pytest.fixture
def refused(write):
    """Return the reason that a transcript is refused for, without file and line number."""

    def refused(*lines, at=1, **options):
        file = write(*lines, **options)
        with pytest.raises(TranscriptError) as caught:
            read_transcript(file)
        text = str(caught.value)
        assert len(text.splitlines()) == 1
        head, _, reason = text.partition(": ")
        assert head == f"{file}, line {at}"
        return reason

    return refused


def said(role, content="text", **fields):
    return {"role": role, "content": content, **fields}


def sections(transcript):
    """Return the texts of system, identity and conversation."""
    found = (transcript.system, transcript.identity, transcript.conversation)
    return tuple([message.text for message in section] for section in found)


async def snapshot(transcript, tokenize=None):
    return await transcript.context(tokenize or ToyScorer().tokenize)


# Sections.


def test_lines_before_the_first_turn_go_by_role(read):
    found = read(
        said("system", "s1"),
        said("identity", "i1"),
        said("memory", "m1", key="a"),
        said("system", "s2"),
        said("tool", "t1"),
        said("memory", "m2", key="b"),
        said("user", "u1"),
    )

    assert sections(found) == (["s1", "s2"], ["i1", "m1", "m2"], ["t1", "u1"])


@pytest.mark.parametrize("first", ["user", "assistant"])
def test_lines_after_the_first_turn_are_the_conversation(first, read):
    found = read(
        said(first, "first"),
        said("system", "s1"),
        said("memory", "m1", key="a"),
        said("tool", "t1"),
        said("user", "u1"),
        said("assistant", "a1"),
    )

    assert sections(found) == ([], [], ["first", "s1", "m1", "t1", "u1", "a1"])


def test_an_identity_line_is_identity_wherever_it_stands(read):
    found = read(said("user", "u1"), said("identity", "i1"), said("user", "u2"))

    assert sections(found) == ([], ["i1"], ["u1", "u2"])


@pytest.mark.parametrize("role", ["system", "identity", "memory", "user", "assistant", "tool"])
@pytest.mark.parametrize("section", ["identity", "conversation"])
@pytest.mark.parametrize("after_a_turn", [False, True])
def test_a_section_that_is_given_counts(role, section, after_a_turn, read):
    before = [said("user", "u")] if after_a_turn else []
    fields = {"key": "k"} if role == "memory" else {}

    found = read(*before, said(role, "x", section=section, **fields))

    expected = {"identity": [], "conversation": ["u"] if after_a_turn else []}
    expected[section].append("x")
    assert sections(found) == ([], expected["identity"], expected["conversation"])


@pytest.mark.parametrize("first", ["user", "assistant"])
def test_a_turn_in_the_identity_section_is_a_turn(first, read):
    found = read(
        said(first, "x", section="identity"), said("memory", "m", key="k"), said("system", "s")
    )

    assert sections(found) == ([], ["x"], ["m", "s"])


def test_an_identity_line_has_role_system(read):
    [message] = read(said("identity")).identity

    assert message.role is Role.SYSTEM


@pytest.mark.parametrize("role", ["system", "memory", "user", "assistant", "tool"])
def test_every_other_line_has_its_own_role(role, read):
    fields = {"key": "k"} if role == "memory" else {}

    [message] = read(said(role, section="conversation", **fields)).conversation

    assert message.role is Role(role)


async def test_the_context_has_the_sections_of_the_transcript(read):
    transcript = read(
        said("system", "s", id="1"),
        said("identity", "i", id="2"),
        said("memory", "m", id="3", key="k"),
        said("user", "u", id="4"),
        said("assistant", "a", id="5"),
    )

    context = await snapshot(transcript)

    assert [node.id for node in context.system] == ["1"]
    assert [node.id for node in context.identity] == ["2", "3"]
    assert [node.id for node in context.conversation] == ["4", "5"]


# Keys and parts.


def test_keys_are_distinct_and_in_the_order_of_the_prompt(read):
    found = read(
        said("memory", key="late", section="conversation"),
        said("memory", key="twice"),
        said("system", [{"text": "x"}, {"text": "y", "key": "first"}]),
        said("user", [{"text": "x", "key": "last"}, {"text": "y", "key": "twice"}]),
    )

    assert found.keys() == ["first", "twice", "late", "last"]


def test_responses_are_the_assistant_lines_of_the_conversation(read):
    found = read(
        said("assistant", section="identity", id="i"),
        said("user", id="u"),
        said("assistant", id="a"),
        said("assistant", "", id="b", token_ids=[]),
    )

    assert found.responses() == [(1, "a"), (2, "b")]


async def test_a_memory_line_bears_its_key_and_the_others_none(read):
    context = await snapshot(read(said("memory", key="k"), said("user")))

    assert [node.memory_key for node in context.identity] == ["k"]
    assert [node.memory_key for node in context.conversation] == [None]


async def test_parts_concatenate_verbatim(read):
    texts = ["  one", "", "\n\ntwo ", " three\t", "é😀"]
    parts = [{"text": text} for text in texts]
    parts[2]["key"] = "k"

    [node] = (await snapshot(read(said("user", parts)))).conversation

    assert node.text == "".join(texts)
    assert node.parts == tuple(
        Part(text, "k" if index == 2 else None) for index, text in enumerate(texts)
    )
    assert list(node.memory_keys()) == ["k"]


async def test_a_plain_content_has_no_parts(read):
    [node] = (await snapshot(read(said("user", "text")))).conversation

    assert (node.text, node.parts, node.render) == ("text", (), None)


async def test_parts_are_tokenised_as_the_one_text_that_they_are(read, bpe):
    parts = [{"text": "the ans", "key": "k"}, {"text": "wer is y"}, {"text": "es"}]

    [in_parts, plain] = (
        await snapshot(read(said("user", parts), said("user", "the answer is yes")), bpe.tokenize)
    ).conversation

    assert in_parts.token_ids == plain.token_ids


async def test_an_assistant_line_may_have_parts_without_keys(read):
    parts = [{"text": "one "}, {"text": "two"}]

    context = await snapshot(read(said("user", "u"), said("assistant", parts)))
    prompt = context.wire_prompt(range(2), lambda key: True)

    assert context.conversation[1].text == "one two"
    assert len(prompt.ranges) == 1


PARTS = [
    {"text": "Notes:\n"},
    {"text": "- the user", "key": "a"},
    {"text": " is tall\n", "key": "b"},
    {"text": "- the user"},
    {"text": " is here\n", "key": "c"},
    {"text": "- again\n", "key": "a"},
    {"text": "Answer."},
]


@pytest.mark.parametrize(
    "skipped", [set(keys) for count in range(4) for keys in combinations("abc", count)]
)
@pytest.mark.parametrize("role", ["system", "user", "tool"])
@pytest.mark.parametrize("tokenizer", ["toy", "bpe"])
async def test_removing_parts_renders_the_rest_exactly(skipped, role, tokenizer, read, bpe):
    tokenize = bpe.tokenize if tokenizer == "bpe" else ToyScorer().tokenize
    rest = "".join(part["text"] for part in PARTS if part.get("key") not in skipped)
    with_parts = await snapshot(read(said(role, PARTS, section="conversation")), tokenize)
    plain = await snapshot(read(said(role, rest, section="conversation")), tokenize)

    without = with_parts.wire_prompt(range(1), skipped.__contains__)

    assert without.tokens == plain.conversation[0].token_ids
    assert without.tokens == plain.wire_prompt(range(1), KEEP_ALL).tokens


async def test_of_many_memories_in_one_message_one_all_or_all_but_one_can_go(read, bpe):
    keys = [f"k{number}" for number in range(12)]
    parts = [{"text": f"- note {key}\n", "key": key} for key in keys]
    [node] = (await snapshot(read(said("user", parts)), bpe.tokenize)).conversation
    everything = frozenset(keys)

    for skipped in [everything, *({key} for key in keys), *(everything - {key} for key in keys)]:
        rest = "".join(part["text"] for part in parts if part["key"] not in skipped)
        [plain] = (await snapshot(read(said("user", rest)), bpe.tokenize)).conversation
        assert tuple(node.render(frozenset(skipped))) == plain.token_ids


async def test_another_selection_of_memories_is_refused_and_not_rendered_wrongly(read):
    parts = [{"text": f"- {key}\n", "key": key} for key in "abcdefgh"]
    context = await snapshot(read(said("user", parts, id="the-node")))

    with pytest.raises(MindhooksError, match="the-node") as caught:
        context.wire_prompt(range(1), frozenset("ab").__contains__)

    assert len(str(caught.value).splitlines()) == 1


async def test_a_memory_line_may_print_another_memory(read, bpe):
    parts = [{"text": "one"}, {"text": " two", "key": "inner"}]
    context = await snapshot(read(said("memory", parts, key="outer")), bpe.tokenize)
    plain = await snapshot(read(said("memory", "one", key="outer")), bpe.tokenize)

    def tokens(context, *skipped):
        return context.wire_prompt(range(0), set(skipped).__contains__).tokens

    assert tokens(context, "inner") == tokens(plain) != ()
    assert tokens(context, "outer") == tokens(context, "outer", "inner") == ()


# ChatML.


@pytest.mark.parametrize(
    ("role", "named"),
    [
        ("system", "system"),
        ("identity", "system"),
        ("memory", "memory"),
        ("user", "user"),
        ("assistant", "assistant"),
        ("tool", "tool"),
    ],
)
async def test_a_line_is_rendered_as_chatml_with_its_own_role(role, named, read, bpe):
    fields = {"key": "k"} if role == "memory" else {}
    line = said(role, "the answer\nis é😀", section="conversation", **fields)

    [node] = (await snapshot(read(line), bpe.tokenize)).conversation

    rendered = f"<|im_start|>{named}\nthe answer\nis é😀<|im_end|>\n"
    assert bpe.decode(node.token_ids) == rendered
    assert node.token_ids[0] == 0
    assert node.token_ids.count(1) == 1


@pytest.mark.parametrize("text", ["the answer", " spaces ", "\n\n", "é😀", "a" * 3000])
async def test_the_body_is_text_and_end_of_turn_without_header_and_newline(text, read, bpe):
    [node] = (await snapshot(read(said("assistant", text)), bpe.tokenize)).conversation

    start, end = node.body
    assert bpe.decode(node.token_ids[:start]) == "<|im_start|>assistant\n"
    assert bpe.decode(node.token_ids[start:end]) == f"{text}<|im_end|>"
    assert bpe.decode(node.token_ids[end:]) == "\n"


async def test_the_body_of_a_response_without_text_is_the_end_of_turn(read, bpe):
    [node] = (await snapshot(read(said("assistant", "")), bpe.tokenize)).conversation

    assert bpe.decode(node.token_ids[slice(*node.body)]) == "<|im_end|>"


@pytest.mark.parametrize("role", ["system", "memory", "user", "tool"])
async def test_only_a_response_has_a_body(role, read):
    fields = {"key": "k"} if role == "memory" else {}
    line = said(role, section="conversation", **fields)
    given = said(role, section="conversation", token_ids=[1, 2], **fields)

    nodes = (await snapshot(read(line, given))).conversation

    assert [node.body for node in nodes] == [(0, 0), (0, 0)]


# Token ids.


async def test_token_ids_spare_the_tokenizer(read):
    async def never(text):
        raise AssertionError(text)

    lines = [said("user", "u", token_ids=[9, 8, 7]), said("assistant", "a", token_ids=[6, 5])]

    nodes = (await snapshot(read(*lines), never)).conversation

    assert [node.token_ids for node in nodes] == [(9, 8, 7), (6, 5)]
    assert [node.text for node in nodes] == ["u", "a"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [(None, (0, 3)), ([1, 3], (1, 3)), ([0, 3], (0, 3)), ([2, 2], (2, 2)), ([0, 0], (0, 0))],
)
async def test_the_body_within_token_ids_is_all_of_them_where_none_is_given(given, expected, read):
    fields = {} if given is None else {"body": given}
    line = said("assistant", token_ids=[4, 5, 6], **fields)

    [node] = (await snapshot(read(line))).conversation

    assert node.body == expected


async def test_token_ids_may_be_empty(read):
    nodes = (
        await snapshot(read(said("user", token_ids=[]), said("assistant", token_ids=[])))
    ).conversation

    assert [(node.token_ids, node.body) for node in nodes] == [((), (0, 0))] * 2


async def test_a_memory_with_token_ids_is_still_a_memory(read):
    context = await snapshot(
        read(said("memory", key="k", token_ids=[5]), said("user", token_ids=[6]))
    )

    assert context.wire_prompt(range(1), KEEP_ALL).tokens == (5, 6)
    assert context.wire_prompt(range(1), {"k"}.__contains__).tokens == (6,)


@pytest.mark.parametrize("largest", [0, 2**31 - 1])
def test_a_token_id_is_a_number_from_0_to_2147483647(largest, read):
    [message] = read(said("user", token_ids=[largest])).conversation

    assert message.token_ids == (largest,)


# Images, timestamps, ids.


async def test_images_are_base64_and_keep_their_order(read):
    images = [Image("image/png", b"\x89PNG\x00\xff"), Image("image/jpeg", b"")]
    line = said(
        "user",
        images=[
            {"mime": image.mime, "data": base64.b64encode(image.data).decode()} for image in images
        ],
    )

    context = await snapshot(read(line, said("user")))

    assert context.conversation[0].images == tuple(images)
    assert context.conversation[1].images == ()
    assert context.wire_prompt(range(2), KEEP_ALL).images == tuple(images)


async def test_the_images_of_a_memory_go_with_it(read):
    line = said("memory", key="k", images=[{"mime": "image/png", "data": "aGk="}])

    context = await snapshot(read(line))

    assert context.wire_prompt(range(0), KEEP_ALL).images == (Image("image/png", b"hi"),)
    assert context.wire_prompt(range(0), {"k"}.__contains__).images == ()


async def test_a_timestamp_is_kept_to_the_nanosecond_and_a_missing_one_is_none(read):
    transcript = read(said("user", timestamp="2026-03-01T12:00:00.123456789Z"), said("user"))

    nodes = (await snapshot(transcript)).conversation

    assert [node.timestamp_ns for node in nodes] == [1_772_366_400_123_456_789, None]


def ids(transcript):
    found = (transcript.system, transcript.identity, transcript.conversation)
    return [message.id for section in found for message in section]


TALK = [
    said("system", "s"),
    said("memory", "m", key="k"),
    said("user", "same"),
    said("assistant", "same"),
    said("user", "same"),
    said("assistant", "same"),
]


def test_an_id_that_is_given_is_the_nodes(read):
    assert ids(read(said("user", id="one"), said("user", id="é 2\n"))) == ["one", "é 2\n"]


def test_ids_that_are_made_are_distinct_even_where_lines_are_the_same(read):
    assert len(set(ids(read(*TALK)))) == len(TALK)


@pytest.mark.parametrize("count", range(1, len(TALK)))
def test_ids_stay_when_lines_are_appended(count, read):
    assert ids(read(*TALK))[:count] == ids(read(*TALK[:count]))


def test_ids_are_the_same_in_a_file_of_another_name(read):
    assert ids(read(*TALK)) == ids(read(*TALK, name="another.jsonl"))


def test_ids_do_not_depend_on_how_the_json_is_written(read):
    loose = [json.dumps(line, indent=None, separators=(" , ", " : ")).encode() for line in TALK]
    turned = [dict(reversed(line.items())) for line in TALK]

    assert ids(read(*loose)) == ids(read(*turned)) == ids(read(*TALK))


@pytest.mark.parametrize(
    "change",
    [
        {"content": "other"},
        {"role": "identity"},
        {"timestamp": "2026-03-01"},
        {"token_ids": [1]},
        {"images": [{"mime": "image/png", "data": "aGk="}]},
    ],
)
def test_ids_differ_between_conversations_from_where_these_differ(change, read):
    one, other = ids(read(*TALK)), ids(read({**TALK[0], **change}, *TALK[1:]))

    assert set(one).isdisjoint(other)


def test_ids_are_the_same_before_the_first_difference(read):
    one = ids(read(*TALK))
    other = ids(read(*TALK[:4], said("user", "other"), TALK[5]))

    assert one[:4] == other[:4]
    assert set(one[4:]).isdisjoint(other[4:])


@given(st.lists(st.sampled_from(TALK[2:]), min_size=1, max_size=8))
def test_ids_that_are_made_never_clash(tmp_path_factory, lines):
    file = tmp_path_factory.getbasetemp() / "clash.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))

    assert len(set(ids(read_transcript(file)))) == len(lines)


# The file.


def test_blank_lines_are_skipped(read):
    found = read(b"", said("user", "a"), b"   ", b"\t", said("user", "b"), b"")

    assert sections(found) == ([], [], ["a", "b"])


def test_a_byte_order_mark_is_skipped(read):
    assert sections(read(said("user", "a"), before=b"\xef\xbb\xbf")) == ([], [], ["a"])


def test_windows_line_ends_change_nothing(read):
    one, other = read(*TALK), read(*TALK, ending="\r\n")

    assert sections(one) == sections(other)
    assert ids(one) == ids(other)


def test_the_last_line_needs_no_line_end(tmp_path):
    file = tmp_path / "talk.jsonl"
    file.write_text(json.dumps(said("user", "a")))

    assert sections(read_transcript(file)) == ([], [], ["a"])


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0c", "\x1c"])
def test_only_a_line_feed_ends_a_line(mark, read):
    line = json.dumps(said("user", f"a{mark}b"), ensure_ascii=ord(mark) < 32)

    assert sections(read(line.encode())) == ([], [], [f"a{mark}b"])


def test_the_transcript_knows_its_file(write):
    file = write(said("user"))

    assert read_transcript(file).file == file


@pytest.mark.parametrize("content", [b"", b"\n", b"\n \r\n\n", b"\xef\xbb\xbf"])
def test_a_file_without_messages_is_an_error_that_names_it(content, tmp_path):
    file = tmp_path / "talk.jsonl"
    file.write_bytes(content)

    with pytest.raises(TranscriptError) as caught:
        read_transcript(file)

    assert str(caught.value) == f"{file}: holds no messages"


@pytest.mark.parametrize(("name", "reason"), [(".", "directory"), ("missing.jsonl", "No such")])
def test_what_is_no_file_is_an_error_that_names_it(name, reason, tmp_path):
    file = tmp_path / name

    with pytest.raises(TranscriptError, match=reason) as caught:
        read_transcript(file)

    assert str(caught.value).startswith(f"{file}: ")
    assert len(str(caught.value).splitlines()) == 1


# Lines that are not valid.


def test_the_number_of_a_wrong_line_counts_blank_ones_too(refused):
    refused(said("user"), b"", b"", said("user"), b"{", at=5)
    refused(b"{", before=b"\xef\xbb\xbf\r\n", at=2)
    refused(said("user"), b"", said("nobody"), at=3, ending="\r\n")


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"hello",
        b'{"role": "user", "content": "a"',
        b'{"role": "user", "content": "a"} {}',
        b'{"role": "user", "content": "a",}',
        b"{'role': 'user', 'content': 'a'}",
        b'{"role": "user", "content": NaN}',
        b'{"role": "user", "content": "a\tb"}',
        b'{"role": "user", "content": "a"}\x00',
    ],
)
def test_a_line_that_is_not_json_is_an_error(line, refused):
    assert "JSON" in refused(line)


@pytest.mark.parametrize(
    "line",
    [
        b'{"role": "user", "content": "\xff"}',
        b'{"role": "user", "content": "\xe9t\xe9"}',
        b'{"role": "user", "content": "a", "id": "\xc3"}',
    ],
)
def test_a_line_that_is_not_utf_8_is_an_error_that_says_so(line, refused):
    assert "UTF-8" in refused(line)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_file_in_utf_16_or_compressed_is_read(tmp_path, pack):
    file = tmp_path / "talk.jsonl"
    file.write_bytes(pack(json.dumps(said("user")).encode("utf-16")))
    assert [it.role for it in read_transcript(file).messages] == ["user"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ([], ["object", "array"]),
        ("text", ["object", "str"]),
        (None, ["object", "null"]),
        ({}, ["role"]),
        ({"role": "user"}, ["content"]),
        ({"content": "a"}, ["role"]),
        (said("nobody"), ["role", "nobody"]),
        (said("User"), ["role", "User"]),
        (said(None), ["role"]),
        (said("user", 5), ["content", "int"]),
        (said("user", None), ["content", "null"]),
        (said("user", ["a"]), ["content[0]"]),
        (said("user", [{"key": "k"}]), ["content[0]", "text"]),
        (said("user", [{"text": "a"}, {"text": 5}]), ["content[1].text"]),
        (said("user", [{"text": "a", "kye": "k"}]), ["content[0]", "kye"]),
        (said("user", [{"text": "a", "key": ""}]), ["content[0].key"]),
        (said("user", name="n"), ["name"]),
        (said("user", keys="k"), ["keys"]),
        (said("user", id=5), ["id"]),
        (said("user", id=""), ["id"]),
        (said("user", section="system"), ["section", "system"]),
        (said("user", section="Conversation"), ["section"]),
        (said("user", timestamp=5), ["timestamp"]),
        (said("user", timestamp="yesterday"), ["yesterday", "ISO 8601"]),
        (said("user", timestamp="2262-04-11T23:47:16.854775808Z"), ["64-bit"]),
        (said("user", timestamp="1677-09-21T00:12:43.145224191Z"), ["64-bit"]),
        (said("user", token_ids="1 2"), ["token_ids"]),
        (said("user", token_ids=[1, "2"]), ["token_ids[1]"]),
        (said("user", token_ids=[1.5]), ["token_ids[0]"]),
        (said("user", token_ids=[True]), ["token_ids[0]"]),
        (said("user", token_ids=[-1]), ["token_ids[0]"]),
        (said("user", token_ids=[2**31]), ["token_ids[0]"]),
        (said("user", token_ids=[2**70]), ["token_ids[0]"]),
        (said("user", images={}), ["images"]),
        (said("user", images=[{"mime": "image/png"}]), ["images[0]", "data"]),
        (said("user", images=[{"data": "aGk="}]), ["images[0]", "mime"]),
        (said("user", images=[{"mime": "", "data": "aGk="}]), ["images[0].mime"]),
        (said("user", images=[{"mime": "a/b", "data": "%%"}]), ["images[0].data", "base64"]),
        (said("user", images=[{"mime": "a/b", "data": "aGk"}]), ["images[0].data", "base64"]),
        (said("user", images=[{"mime": "a/b", "data": "aGk=", "x": 1}]), ["images[0]", "x"]),
    ],
)
def test_a_line_of_another_shape_is_an_error_that_names_the_field(line, words, refused):
    reason = refused(line)

    assert [word for word in words if word not in reason] == []
    assert "$" not in reason


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (said("memory"), ["'key'", "memory"]),
        (said("memory", key=""), ["key"]),
        (said("memory", key=None), ["'key'"]),
        *((said(role, key="k"), ["'key'", role]) for role in ["system", "identity", "user"]),
        *((said(role, key="k"), ["'key'", role]) for role in ["assistant", "tool"]),
        (said("assistant", [{"text": "a"}, {"text": "b", "key": "k"}]), ["'key'", "assistant"]),
        (said("user", [{"text": "a"}], token_ids=[1]), ["'token_ids'", "'content'"]),
        (said("user", [], token_ids=[]), ["'token_ids'", "'content'"]),
        (said("assistant", body=[0, 1]), ["'body'", "'token_ids'"]),
        (said("user", body=[0, 0]), ["'body'"]),
        (said("user", token_ids=[1, 2], body=[0, 1]), ["'body'", "assistant"]),
        (said("assistant", token_ids=[1, 2], body=[0, 3]), ["'body'", "2 token_ids"]),
        (said("assistant", token_ids=[1, 2], body=[-1, 2]), ["'body'"]),
        (said("assistant", token_ids=[1, 2], body=[2, 1]), ["'body'"]),
        (said("assistant", token_ids=[1, 2], body=[1]), ["body"]),
        (said("assistant", token_ids=[1, 2], body=[0, 1, 2]), ["body"]),
        (said("assistant", token_ids=[1, 2], body=[0, "2"]), ["body[1]"]),
        (said("assistant", token_ids=[1, 2], body=2), ["body"]),
    ],
)
def test_fields_that_do_not_go_together_are_an_error_that_names_them(line, words, refused):
    reason = refused(line)

    assert [word for word in words if word not in reason] == []


def test_an_id_that_is_taken_is_an_error_that_names_the_first_line(refused):
    reason = refused(said("system", id="x"), b"", said("user", id="y"), said("tool", id="x"), at=4)

    assert "'x'" in reason
    assert "line 1" in reason


def test_an_id_that_was_made_for_another_line_is_taken_too(read, refused):
    [made] = ids(read(said("user")))

    assert made in refused(said("user"), said("user", id=made), at=2)


@pytest.mark.parametrize(
    "line",
    [
        said("us\ner"),
        said("user", timestamp="yester\nday"),
        {**said("user"), "na\nme": 1},
        said("user", [{"text": "a", "k\ney": "k"}]),
        said("user", section="a\u2028b"),
    ],
)
def test_a_reason_with_a_line_break_in_it_is_told_in_one_line(line, refused):
    refused(line)


def test_a_second_id_with_a_line_break_in_it_is_refused_in_one_line(refused):
    refused(said("user", id="a\nb"), said("user", id="a\nb"), at=2)


# All of it together.


class Bpe:
    """The byte-level BPE, there and back."""

    def __init__(self, file):
        self._tokenizer = Tokenizer.from_file(str(file))
        self.tokenize = FileTokenizer(file).tokenize

    def decode(self, tokens):
        return self._tokenizer.decode(tokens, skip_special_tokens=False)

    def ids(self, text):
        return self._tokenizer.encode(text, add_special_tokens=False).ids


@pytest.fixture(scope="module")
def bpe(tokenizer_file):
    return Bpe(tokenizer_file)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["the answer is yes", "\n\nno", " - notes of the user\n"]
)
KEYS = st.sampled_from(["a", "b", "c"])


@st.composite
def transcript_lines(draw):
    role = draw(st.sampled_from(["system", "identity", "memory", "user", "assistant", "tool"]))
    line = {"role": role, "content": draw(TEXTS)}
    if role == "memory":
        line["key"] = draw(KEYS)
    if draw(st.booleans()):
        keys = st.none() if role == "assistant" else st.none() | KEYS
        parts = draw(st.lists(st.tuples(TEXTS, keys), max_size=4))
        line["content"] = [
            {"text": text} if key is None else {"text": text, "key": key} for text, key in parts
        ]
    elif draw(st.booleans()):
        line["token_ids"] = draw(st.lists(st.integers(0, 399), max_size=5))
        if role == "assistant" and draw(st.booleans()):
            start = draw(st.integers(0, len(line["token_ids"])))
            line["body"] = [start, draw(st.integers(start, len(line["token_ids"])))]
    if draw(st.integers(0, 4)) == 0:
        line["section"] = draw(st.sampled_from(["identity", "conversation"]))
    return line


def expected_order(lines):
    """Return the lines by section 7's rules: system, identity, conversation."""
    order = {"system": [], "identity": [], "conversation": []}
    turns = [index for index, line in enumerate(lines) if line["role"] in ("user", "assistant")]
    first_turn = turns[0] if turns else len(lines)
    for index, line in enumerate(lines):
        section = "conversation"
        if line["role"] == "identity" or (line["role"] == "memory" and index < first_turn):
            section = "identity"
        if line["role"] == "system" and index < first_turn:
            section = "system"
        order[line.get("section", section)].append(line)
    return order


def rendered(line, encode, skipped=()):
    """Return a line's ids, and the ids of its body."""
    if "token_ids" in line:
        start, end = line.get("body", [0, len(line["token_ids"])])
        return line["token_ids"], line["token_ids"][start:end]
    content = line["content"]
    if not isinstance(content, str):
        content = "".join(part["text"] for part in content if part.get("key") not in skipped)
    role = "system" if line["role"] == "identity" else line["role"]
    spoken = [*encode(content), *encode("<|im_end|>")]
    return [*encode(f"<|im_start|>{role}\n"), *spoken, *encode("\n")], spoken


@given(
    lines=st.lists(transcript_lines(), min_size=1, max_size=8),
    skipped=st.sampled_from(["", "a", "b", "c", "abc"]),
    ending=st.sampled_from(["\n", "\r\n", "\n\n"]),
    ascii_only=st.booleans(),
)
def test_a_prompt_is_the_rendered_pieces_of_its_lines(
    lines, skipped, ending, ascii_only, bpe, tmp_path_factory
):
    # A response at the very start of a prompt has no log-probability: one line goes before all.
    lines = [said("system"), *lines]
    skipped = set(skipped)
    file = tmp_path_factory.getbasetemp() / "talk.jsonl"
    text = "".join(json.dumps(line, ensure_ascii=ascii_only) + ending for line in lines)
    file.write_bytes(text.encode())
    order = expected_order(lines)

    context = asyncio.run(read_transcript(file).context(bpe.tokenize))
    prompt = context.wire_prompt(range(len(context.conversation)), skipped.__contains__)

    kept = [
        line
        for section in order.values()
        for line in section
        if line["role"] != "memory" or line["key"] not in skipped
    ]
    pieces = [rendered(line, bpe.ids, skipped) for line in kept]
    assert list(prompt.tokens) == [token for piece, _ in pieces for token in piece]
    responses = [
        body
        for line, (_, body) in zip(kept, pieces, strict=True)
        if line["role"] == "assistant" and body
    ]
    assert [list(prompt.tokens[start:end]) for start, end in prompt.ranges] == responses
    assert [len(section) for section in order.values()] == [
        len(context.system),
        len(context.identity),
        len(context.conversation),
    ]


@given(lines=st.lists(transcript_lines(), min_size=1, max_size=6))
def test_a_line_more_changes_nothing_that_was_there(lines, tmp_path_factory):
    file = tmp_path_factory.getbasetemp() / "grows.jsonl"
    seen = []
    for count in range(1, len(lines) + 1):
        file.write_text("".join(json.dumps(line) + "\n" for line in lines[:count]))
        found = read_transcript(file)
        now = [
            (section, message.id, message.text)
            for section in ("system", "identity", "conversation")
            for message in getattr(found, section)
        ]
        assert set(seen) <= set(now)
        assert len(now) == count
        seen = now
