"""The guard: the texts that it measures, and its verdict."""

import math

import pytest

from mindhooks import ScorerError
from mindscore.conversation.template import NoTemplateError
from mindscore.training.guard import Guard, Losses, UnrelatedAnswer, unrelated_answers

PLAIN = UnrelatedAnswer("Which way?", "Left.")


def rendering(*, refuses=(), thinks=""):
    """A chat template, in brackets; it refuses some roles, and may ask for a thought."""

    async def render(messages, ask, tools=()):
        if {it["role"] for it in messages} & set(refuses):
            raise ScorerError("no such role")
        asked = f"[assistant]{thinks}" if ask else ""
        return "".join(f"[{it['role']}]{it['content']}\n" for it in messages) + asked

    return render


async def missing(messages, ask, tools=()):
    raise NoTemplateError("none")


async def test_answers_are_printed_by_the_models_own_template():
    prompt, answer = await PLAIN.texts(rendering())
    assert prompt == "[system]You are a helpful assistant.\n[user]Which way?\n[assistant]"
    assert answer == "Left."


async def test_a_template_without_system_messages_gets_none():
    prompt, answer = await PLAIN.texts(rendering(refuses=("system",)))
    assert (prompt, answer) == ("[user]Which way?\n[assistant]", "Left.")


async def test_a_template_that_asks_for_a_thought_gets_the_answer_behind_it():
    prompt, answer = await PLAIN.texts(rendering(thinks="<think></think>"))
    assert (prompt.endswith("[assistant]<think></think>"), answer) == (True, "Left.")


@pytest.mark.parametrize("render", [None, missing])
async def test_without_a_template_they_are_chatml(render):
    prompt, answer = await PLAIN.texts(render)
    assert prompt.endswith("user\nWhich way?<|im_end|>\n<|im_start|>assistant\n")
    assert answer == "Left.<|im_end|>"


async def test_a_template_that_refuses_everything_is_an_error():
    with pytest.raises(ScorerError, match="no such role"):
        await PLAIN.texts(rendering(refuses=("user",)))


def test_no_two_questions_are_the_same_and_none_is_of_the_demo():
    from importlib.resources import files

    questions = [it.question for it in unrelated_answers()]
    assert len(set(questions)) == len(questions) >= 20
    demo = (files("mindscore") / "demo" / "unrelated.jsonl").read_text(encoding="utf-8")
    assert not any(it in demo for it in questions)


@pytest.mark.parametrize(
    ("after", "limit", "passed"),
    [
        (2.0, 0.05, True),
        (1.0, 0.05, True),
        (2.04, 0.05, True),
        (2.06, 0.05, False),
        (9.0, 0.0, True),
        (math.nan, 0.05, False),
        (math.nan, 0.0, False),
        (math.inf, 0.0, False),
    ],
)
def test_answers_may_get_worse_by_the_limit_and_not_by_more(after, limit, passed):
    guard = Guard.judge(Losses(2.0, after), 2.0, limit)
    assert guard.passed is passed


def test_its_words_have_the_numbers():
    assert Guard.judge(Losses(2.0, 2.5), 1.75, 0.05).words == (
        "unrelated answers: 2.000 → 2.500 nats per token (+0.500, limit +0.05, 1.750 without any "
        "adapter)"
    )
    assert Guard.judge(Losses(2.0, 2.5), 2.0, 0.0).words.endswith("(+0.500, no limit)")
