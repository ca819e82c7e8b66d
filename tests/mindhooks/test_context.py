"""``Context.wire_prompt``: section 3.5."""

from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindhooks import Context, Image, MindhooksError, Node, Part, Role, WirePrompt

PICTURE = Image("image/png", b"picture")


def keep_all(key):
    return False


def skipping(*keys):
    return lambda key: key in keys


def message(name, tokens, role=Role.USER, **fields):
    return Node(name, role, name, tuple(tokens), **fields)


def response(name, tokens, body):
    return Node(name, Role.ASSISTANT, name, tuple(tokens), body=body)


def memory(key, tokens):
    return Node(f"memory {key}", Role.MEMORY, key, tuple(tokens), memory_key=key)


def printed(name, header, memories, role=Role.SYSTEM, calls=None):
    """A node that prints ``memories`` (key to tokens) after a header that counts them."""

    def render(skipped):
        if calls is not None:
            calls.append(skipped)
        kept = [tokens for key, tokens in memories.items() if key not in skipped]
        return [header, len(kept), *(token for tokens in kept for token in tokens)]

    parts = (Part(name), *(Part(key, key) for key in memories))
    return Node(name, role, name, tuple(render(frozenset())), parts=parts, render=render)


CONTEXT = Context(
    system=(message("system", [1, 2], Role.SYSTEM),),
    identity=(memory("k1", [3]), memory("k2", [4, 5])),
    conversation=(
        message("question", [6]),
        response("answer", [7, 8, 9, 10], (1, 3)),
        memory("k3", [11]),
        message("result", [12], Role.TOOL),
        response("called a tool", [13], (0, 0)),
        response("last", [14, 15], (0, 2)),
    ),
)
WHOLE = range(6)


def test_a_prompt_is_system_then_identity_then_conversation():
    prompt = CONTEXT.wire_prompt(WHOLE, keep_all)
    assert prompt.tokens == tuple(range(1, 16))


def test_there_is_one_range_per_response_the_span_of_its_body_in_the_prompt():
    prompt = CONTEXT.wire_prompt(WHOLE, keep_all)
    assert prompt.node_ids == ("answer", "last")
    assert [prompt.tokens[start:end] for start, end in prompt.ranges] == [(8, 9), (14, 15)]


def test_the_window_bounds_the_conversation_only():
    prompt = CONTEXT.wire_prompt(range(1, 3), keep_all)
    assert prompt.tokens == (1, 2, 3, 4, 5, 7, 8, 9, 10, 11)
    assert prompt.node_ids == ("answer",)
    assert CONTEXT.wire_prompt(range(0), keep_all).tokens == (1, 2, 3, 4, 5)


@pytest.mark.parametrize(
    ("keys", "tokens"),
    [
        (["k1"], [1, 2, *range(4, 16)]),
        (["k3"], [*range(1, 11), *range(12, 16)]),
        (["k1", "k2", "k3"], [1, 2, *range(6, 11), *range(12, 16)]),
        (["unknown"], range(1, 16)),
    ],
)
def test_a_memory_whose_key_is_skipped_is_left_out(keys, tokens):
    prompt = CONTEXT.wire_prompt(WHOLE, skipping(*keys))
    assert prompt.tokens == tuple(tokens)
    assert [prompt.tokens[start:end] for start, end in prompt.ranges] == [(8, 9), (14, 15)]
    assert prompt.node_ids == ("answer", "last")


def test_a_response_that_is_a_memory_itself_is_skipped_like_any_other():
    said = replace(response("said", [2, 3], (0, 2)), memory_key="k")
    context = Context((message("system", [1]),), (), (said,))
    assert context.wire_prompt(range(1), keep_all).ranges == ((1, 3),)
    assert context.wire_prompt(range(1), skipping("k")) == WirePrompt((1,), (), (), ())


def test_images_come_with_the_nodes_that_are_kept():
    other = replace(PICTURE, data=b"other")
    context = Context(
        (message("system", [1], images=(PICTURE,)),),
        (replace(memory("k", [2]), images=(other,)),),
        (message("question", [3], images=(PICTURE, other)),),
    )
    assert context.wire_prompt(range(1), keep_all).images == (PICTURE, other, PICTURE, other)
    assert context.wire_prompt(range(1), skipping("k")).images == (PICTURE, PICTURE, other)


# -- memories that are parts of a node ------------------------------------------------------------


def test_parts_whose_key_is_skipped_are_left_out_by_the_hosts_own_rules():
    context = Context((printed("prompt", 90, {"k1": [1, 2], "k2": [3]}),), (), ())
    assert context.wire_prompt(range(0), keep_all).tokens == (90, 2, 1, 2, 3)
    assert context.wire_prompt(range(0), skipping("k1")).tokens == (90, 1, 3)
    assert context.wire_prompt(range(0), skipping("k1", "k2", "k3")).tokens == (90, 0)


def test_a_range_moves_with_what_is_left_out_before_it():
    context = Context(
        (printed("prompt", 90, {"k1": [1, 2]}),), (), (response("answer", [5, 6, 7], (1, 3)),)
    )
    assert context.wire_prompt(range(1), keep_all).ranges == ((5, 7),)
    assert context.wire_prompt(range(1), skipping("k1")).ranges == ((3, 5),)


def test_render_is_given_exactly_the_nodes_own_keys_that_are_skipped():
    calls = []
    node = printed("prompt", 90, {"k1": [1], "k2": [2], "k3": [3]}, calls=calls)
    context = Context((node,), (memory("k4", [4]),), ())
    calls.clear()
    context.wire_prompt(range(0), skipping("k1", "k3", "k4", "k5"))
    assert calls == [frozenset({"k1", "k3"})]
    assert isinstance(calls[0], frozenset)


def test_render_is_called_once_per_set_of_skipped_keys():
    calls = []
    node = printed("prompt", 90, {"k1": [1], "k2": [2]}, calls=calls)
    context = Context((node,), (), ())
    calls.clear()
    for _ in range(3):
        for keys in (["k1"], ["k2"], ["k1", "k2"], []):
            context.wire_prompt(range(0), skipping(*keys))
    assert sorted(map(sorted, calls)) == [["k1"], ["k1", "k2"], ["k2"]]


def test_a_node_none_of_whose_parts_is_skipped_keeps_its_ids():
    calls = []
    node = replace(printed("prompt", 90, {"k1": [1]}, calls=calls), token_ids=(77, 78))
    calls.clear()
    plain_parts = message("question", [6], parts=(Part("a"), Part("b")))
    context = Context((node,), (), (plain_parts,))
    assert context.wire_prompt(range(1), skipping("k2")).tokens == (77, 78, 6)
    assert calls == []


def test_two_nodes_of_one_id_are_rendered_each_by_its_own_rules():
    first = printed("prompt", 90, {"k": [1]})
    second = printed("prompt", 80, {"k": [2]})
    context = Context((first,), (second,), ())
    assert context.wire_prompt(range(0), skipping("k")).tokens == (90, 0, 80, 0)


def test_two_contexts_that_share_a_node_agree():
    node = printed("prompt", 90, {"k": [1]})
    first = Context((node,), (), ())
    second = replace(first, conversation=(message("question", [6]),))
    assert first.wire_prompt(range(0), skipping("k")).tokens == (90, 0)
    assert second.wire_prompt(range(1), skipping("k")).tokens == (90, 0, 6)


def test_a_node_that_is_a_memory_and_has_parts_goes_as_a_whole_when_its_own_key_is_skipped():
    node = replace(printed("notes", 90, {"k1": [1]}, Role.MEMORY), memory_key="notes")
    context = Context((), (node,), ())
    assert context.wire_prompt(range(0), skipping("notes")).tokens == ()
    assert context.wire_prompt(range(0), skipping("k1")).tokens == (90, 0)


# -- what breaks the rules ------------------------------------------------------------------------


def test_an_assistant_node_with_keyed_parts_is_a_mindhooks_error():
    node = printed("answer", 90, {"k": [1]}, Role.ASSISTANT)
    context = Context((message("system", [1]),), (), (node,))
    for skip in (keep_all, skipping("k")):
        with pytest.raises(MindhooksError, match="answer"):
            context.wire_prompt(range(1), skip)


def test_a_range_at_token_0_is_a_mindhooks_error():
    context = Context((), (memory("k", [1]),), (response("answer", [2, 3], (0, 1)),))
    assert context.wire_prompt(range(1), keep_all).ranges == ((1, 2),)
    with pytest.raises(MindhooksError, match="answer"):
        context.wire_prompt(range(1), skipping("k"))


def test_a_response_after_its_own_header_may_open_the_prompt():
    context = Context((), (), (response("answer", [1, 2, 3], (1, 3)),))
    assert context.wire_prompt(range(1), keep_all).ranges == ((1, 3),)


def test_an_empty_body_at_token_0_is_no_error():
    context = Context((), (), (response("silent", [1], (0, 0)),))
    assert context.wire_prompt(range(1), keep_all) == WirePrompt((1,), (), (), ())


@pytest.mark.parametrize("body", [(-1, 2), (2, 1), (1, 4), (5, 6)])
def test_a_body_that_is_no_span_of_its_node_is_a_mindhooks_error(body):
    context = Context((message("system", [1]),), (), (response("answer", [1, 2, 3], body),))
    with pytest.raises(MindhooksError, match="answer"):
        context.wire_prompt(range(1), keep_all)


def test_two_responses_of_one_id_are_a_mindhooks_error():
    same = [response("answer", [tokens], (0, 1)) for tokens in (2, 3)]
    context = Context((message("system", [1]),), (), tuple(same))
    assert context.wire_prompt(range(1), keep_all).node_ids == ("answer",)
    with pytest.raises(MindhooksError, match="answer"):
        context.wire_prompt(range(2), keep_all)


def test_keyed_parts_without_a_render_are_a_mindhooks_error_once_one_is_skipped():
    node = replace(printed("prompt", 90, {"k": [1]}), render=None)
    context = Context((node,), (), ())
    with pytest.raises(MindhooksError, match="prompt"):
        context.wire_prompt(range(0), skipping("k"))


# -- against a second implementation --------------------------------------------------------------

KEYS = ["k1", "k2", "k3", "k4"]
token_lists = st.lists(st.integers(0, 99), max_size=4)
keys = st.sampled_from(KEYS)
images = st.lists(st.builds(Image, st.just("image/png"), st.binary(max_size=1)), max_size=2)


@st.composite
def nodes(draw, numbers):
    """A node of any kind; ``numbers`` make its id unlike every other."""
    name = f"n{next(numbers)}"
    kind = draw(st.sampled_from(["plain", "memory", "response", "printed"]))
    tokens = draw(token_lists)
    if kind == "memory":
        node = replace(memory(draw(keys), tokens), id=name)
    elif kind == "response":
        start = draw(st.integers(0, len(tokens)))
        node = response(name, tokens, (start, draw(st.integers(start, len(tokens)))))
    elif kind == "printed":
        memories = draw(st.dictionaries(keys, token_lists, max_size=3))
        role = draw(st.sampled_from([Role.SYSTEM, Role.USER, Role.TOOL]))
        node = printed(name, draw(st.integers(0, 99)), memories, role)
    else:
        role = draw(st.sampled_from([Role.SYSTEM, Role.USER, Role.TOOL]))
        # The span of what no model produced is no range.
        node = message(name, tokens, role, body=(0, len(tokens)))
    return replace(node, images=tuple(draw(images)))


@st.composite
def contexts(draw):
    numbers = count()
    runs = [tuple(draw(st.lists(nodes(numbers), max_size=size))) for size in (2, 3, 6)]
    return Context(*runs)


@st.composite
def requests(draw):
    context = draw(contexts())
    start = draw(st.integers(0, len(context.conversation)))
    stop = draw(st.integers(start, len(context.conversation)))
    return context, range(start, stop), frozenset(draw(st.sets(keys)))


def naive_wire_prompt(context, window, skipped):
    """The same from the other end: each token is labelled with the response it belongs to."""
    listed = [*context.system, *context.identity]
    listed += context.conversation[window.start : window.stop]
    kept = [node for node in listed if node.memory_key not in skipped]
    labelled = []
    for node in kept:
        own = {part.memory_key for part in node.parts} & skipped
        ids = node.render(frozenset(own)) if own else node.token_ids
        body = range(*node.body) if node.role is Role.ASSISTANT else ()
        labelled += [(token, node.id if place in body else None) for place, token in enumerate(ids)]
    names = [node.id for node in kept if any(label == node.id for _, label in labelled)]
    places = [
        [place for place, (_, label) in enumerate(labelled) if label == name] for name in names
    ]
    return WirePrompt(
        tokens=tuple(token for token, _ in labelled),
        images=tuple(image for node in kept for image in node.images),
        ranges=tuple((found[0], found[-1] + 1) for found in places),
        node_ids=tuple(names),
    )


@given(requests())
def test_a_prompt_is_what_a_naive_implementation_makes(request):
    context, window, skipped = request
    expected = naive_wire_prompt(context, window, skipped)
    if any(start == 0 for start, _ in expected.ranges):
        with pytest.raises(MindhooksError, match="token 0"):
            context.wire_prompt(window, skipped.__contains__)
    else:
        assert context.wire_prompt(window, skipped.__contains__) == expected


@given(requests(), st.data())
def test_a_prompt_depends_on_nothing_that_was_asked_before(request, data):
    context, window, skipped = request
    context = replace(context, system=(message("system", [1]), *context.system))
    fresh = replace(context)
    for _ in range(data.draw(st.integers(0, 3))):
        context.wire_prompt(window, data.draw(st.sets(keys)).__contains__)
    prompts = [context.wire_prompt(window, skipped.__contains__) for _ in range(2)]
    assert prompts == [fresh.wire_prompt(window, skipped.__contains__)] * 2


@given(requests())
def test_a_response_is_the_same_tokens_with_and_without_memories(request):
    context, window, skipped = request
    context = replace(context, system=(message("system", [1]), *context.system))
    given_all = context.wire_prompt(window, keep_all)
    given_less = context.wire_prompt(window, skipped.__contains__)

    def said(prompt):
        return {
            name: prompt.tokens[start:end]
            for name, (start, end) in zip(prompt.node_ids, prompt.ranges, strict=True)
        }

    assert said(given_less) == said(given_all)
