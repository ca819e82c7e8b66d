"""The shapes of the lines."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindhooks import NotAccepted
from mindscore.training.sinks.formats import FORMATS, messages_of


def chatml(*messages):
    said = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in messages)
    return f"{said}<|im_start|>assistant\n"


@pytest.fixture
def with_text(sample):
    def make(context, answer="Yes.<|im_end|>", rejected="No.<|im_end|>"):
        return replace(
            sample(), context_text=context, continuation_text=answer, rejected_text=rejected
        )

    return make


def test_input_ids_are_prompt_and_answer_and_the_answer_alone_is_learnt(sample):
    assert FORMATS["input_ids"].line(sample(context="full")) == {
        "input_ids": (1, 9, 2, 3, 4),
        "attention_mask": [1, 1, 1, 1, 1],
        "labels": [-100, -100, -100, 3, 4],
    }


def test_prompt_and_completion_are_the_texts_as_they_are(with_text):
    made = with_text(chatml(("user", " Hm? ")), " Yes.\n<|im_end|>")
    assert FORMATS["prompt_completion"].line(made) == {
        "prompt": "<|im_start|>user\n Hm? <|im_end|>\n<|im_start|>assistant\n",
        "completion": " Yes.\n<|im_end|>",
    }


def test_a_preference_is_the_chosen_answer_over_the_other(with_text):
    assert FORMATS["preference"].line(with_text("p")) == {
        "prompt": "p",
        "chosen": "Yes.<|im_end|>",
        "rejected": "No.<|im_end|>",
    }


def test_a_sample_without_another_answer_is_no_preference(with_text):
    with pytest.raises(NotAccepted, match="'reply' has no second answer"):
        FORMATS["preference"].line(with_text("p", rejected=None))


def test_messages_are_those_of_the_prompt_and_the_answer_and_a_memory_is_a_system_message(
    with_text,
):
    context = chatml(("system", "Help."), ("memory", "Tea."), ("user", "1\n2"), ("tool", ""))
    assert FORMATS["messages"].line(with_text(context)) == {
        "messages": [
            {"role": "system", "content": "Help."},
            {"role": "system", "content": "Tea."},
            {"role": "user", "content": "1\n2"},
            {"role": "tool", "content": ""},
            {"role": "assistant", "content": "Yes."},
        ]
    }


def test_an_answer_that_was_cut_short_is_a_message_all_the_same():
    assert messages_of(chatml(), "Ye") == [{"role": "assistant", "content": "Ye"}]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["system", "user", "assistant", "tool"]),
            st.text().filter(lambda it: "<|" not in it),
        )
    )
)
def test_any_text_comes_back_as_it_was(messages):
    expected = [{"role": role, "content": text} for role, text in messages]
    assert messages_of(chatml(*messages), "A.<|im_end|>")[:-1] == expected


NO_MESSAGES = {
    "another template": "[INST] Hi [/INST]",
    "nothing": "",
    "no question for an answer": chatml(("user", "Hi")).removesuffix("<|im_start|>assistant\n"),
    "something before": " " + chatml(("user", "Hi")),
    "something between": chatml(("user", "Hi")).replace("<|im_end|>\n", "<|im_end|>\n\n"),
    "another role": chatml(("ipython", "Hi")),
    "a message within a message": chatml(("user", "a<|im_start|>user\nb")),
    "an image": chatml(("user", "<|vision_start|><|image_pad|><|vision_end|>What is it?")),
}


@pytest.mark.parametrize("context", NO_MESSAGES.values(), ids=NO_MESSAGES)
def test_what_is_no_plain_chatml_is_refused_with_the_formats_that_work(with_text, context):
    with pytest.raises(NotAccepted, match="input_ids, prompt_completion or preference") as caught:
        FORMATS["messages"].line(with_text(context))
    assert "'reply'" in str(caught.value)


def test_an_answer_with_a_turn_within_is_refused(with_text):
    with pytest.raises(NotAccepted, match="within a message"):
        FORMATS["messages"].line(with_text(chatml(), "a<|im_end|>\n<|im_start|>user\nb<|im_end|>"))


def test_only_ids_need_no_text_and_only_preferences_another_answer():
    assert [name for name, it in FORMATS.items() if not it.wants_text] == ["input_ids"]
    assert [name for name, it in FORMATS.items() if it.wants_rejected] == ["preference"]
