"""What is sent: nothing after the last response asked for."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from mindhooks import Image, WirePrompt
from mindscore.measure.memories import (
    responses,
    responses_after_change,
    skip_all,
    skip_none,
    skip_only,
    whole,
)
from mindscore.measure.prompts import ask_only, prompt_for

PROMPT = WirePrompt((1, 2, 3, 4), (), ((1, 2), (2, 3), (3, 4)), ("a", "b", "c"))


def test_asking_for_some_responses_only_leaves_the_prompt_as_it_is_up_to_the_last():
    assert ask_only(PROMPT, {"c", "a"}) == WirePrompt(
        PROMPT.tokens, (), ((1, 2), (3, 4)), ("a", "c")
    )
    assert ask_only(PROMPT, {"a", "b"}) == WirePrompt((1, 2, 3), (), ((1, 2), (2, 3)), ("a", "b"))


def test_asking_for_nothing_leaves_nothing_to_send():
    assert ask_only(PROMPT, ()) == WirePrompt((), (), (), ())


@given(data=st.data())
def test_a_prompt_is_the_windows_cut_after_the_last_response_asked_for(talks, data):
    talk = data.draw(talks)
    context = talk.context()
    window = whole(context)
    skip = data.draw(st.sampled_from([skip_none, skip_all, skip_only("a"), skip_only("b")]))
    asked = data.draw(st.sets(st.sampled_from(sorted(responses(context, window, skip)) or [""])))
    prompt = prompt_for(context, window, skip, asked)
    full = context.wire_prompt(window, skip)
    assert full.tokens[: len(prompt.tokens)] == prompt.tokens
    assert set(prompt.node_ids) == asked & set(full.node_ids)
    assert len(prompt.tokens) == max((end for _, end in prompt.ranges), default=0)
    spans = dict(zip(full.node_ids, full.ranges, strict=True))
    assert [spans[id_] for id_ in prompt.node_ids] == list(prompt.ranges)


def test_images_after_the_last_response_asked_for_are_not_sent(say):
    talk = say.talk(
        say.memory("k", 3, images=("before.png",)),
        say.reply(3),
        say.user(5, images=("after.png",)),
        say.reply(4),
    )
    context = talk.context()
    asked = sorted(responses_after_change(context, whole(context), skip_only("k")))
    assert asked == ["c1", "c3"]
    first, both = (prompt_for(context, whole(context), skip_none, asked[:n]) for n in (1, 2))
    assert first.tokens == (3, 21, 3, 7)
    assert both.tokens == (3, 21, 3, 7, 22, 5, 21, 4, 7)
    assert [image.data for image in first.images] == [b"before.png"]
    assert [image.data for image in both.images] == [b"before.png", b"after.png"]


def test_a_prompt_with_images_is_not_cut_where_they_may_stand():
    with_image = replace(PROMPT, images=(Image("image/png", b"x"),))
    asked = ask_only(with_image, {"a"})
    assert (asked.tokens, asked.images) == (with_image.tokens, with_image.images)
    assert asked.ranges == ((1, 2),)
