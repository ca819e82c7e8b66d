"""Which candidates are trained on, and with which answer."""

import pytest

from mindscore.config.settings import parse_settings
from mindscore.training.outbox import select

SETTINGS = parse_settings({"store": {"namespace": "n"}})


def test_what_was_accepted_is_selected_in_order_and_the_others_are_counted(reviewed):
    queue = [
        reviewed("accepted", timestamp_ns=1),
        reviewed("rejected", timestamp_ns=2),
        reviewed(timestamp_ns=3),
        reviewed("accepted", timestamp_ns=4),
        reviewed(timestamp_ns=5),
    ]
    selection = select(queue, SETTINGS, unreviewed=False)
    assert [it.candidate.timestamp_ns for it in selection.samples] == [1, 4]
    assert (selection.waiting, selection.rejected) == (2, 1)


def test_what_nobody_reviewed_is_selected_where_that_is_asked_for_and_the_rejected_never(reviewed):
    queue = [reviewed("accepted", timestamp_ns=1), reviewed("rejected"), reviewed(timestamp_ns=3)]
    selection = select(queue, SETTINGS, unreviewed=True)
    assert [it.candidate.timestamp_ns for it in selection.samples] == [1, 3]
    assert [it.decision for it in selection.samples] == ["accepted", None]
    assert (selection.waiting, selection.rejected) == (0, 1)


def test_what_a_sink_has_waits_for_no_review(reviewed):
    queue = [reviewed(sinks=("http",)), reviewed(sinks=("",)), reviewed()]
    assert select(queue, SETTINGS, unreviewed=False).waiting == 1


@pytest.mark.parametrize(("context", "ids"), [("bare", (1, 2)), ("full", (1, 9, 2))])
def test_the_prompt_is_with_memories_or_without_as_the_settings_say(reviewed, context, ids):
    settings = parse_settings({"train": {"context": context}, "store": {"namespace": "agent"}})
    [sample] = select([reviewed("accepted")], settings, unreviewed=False).samples
    assert (sample.context, sample.context_ids, sample.namespace) == (context, ids, "agent")


ANSWERS = {
    "the response": (("accepted", "response"), (3, 4), (5, 4)),
    "the alternate": (("accepted", "alternate", (5, 4)), (5, 4), (3, 4)),
    "an edited one": (("accepted", "edited", (6, 4)), (6, 4), (3, 4)),
    "nobody's": ((), (3, 4), (5, 4)),
}


@pytest.mark.parametrize(("given", "chosen", "other"), ANSWERS.values(), ids=ANSWERS)
def test_the_chosen_answer_is_learnt_and_the_other_is_what_it_was_chosen_over(
    sample, given, chosen, other
):
    made = sample(*given)
    assert (made.continuation_ids, made.rejected_ids) == (chosen, other)
    assert made.answer == (given[1] if given else "response")
    assert made.candidate.continuation_ids == (3, 4)


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        (("accepted",), {"alternate_ids": None}),
        (("accepted",), {"alternate_ids": (3, 4)}),
        (("accepted", "edited", (3, 4)), {}),
    ],
)
def test_an_answer_that_is_the_same_or_not_there_is_no_other(sample, given, fields):
    assert sample(*given, **fields).rejected_ids is None
