"""Responses that end beyond the tokens that the model reads are left out, and said to be."""

import pytest

from mindhooks import MindCommand, ScorerError
from mindscore.measure.leave_one_out import LeaveOneOut, UnreadResponses, score_memory
from mindscore.scorers.toy import ToyScorer

SCORE, FULL, FINETUNE = MindCommand.SCORE, MindCommand.SCORE_FULL, MindCommand.SCORE_FINETUNE
ALL = {
    "memory": {"token_cutoff": 1.0, "interval_s": 0},
    "finetune": {"threshold": 0.0, "window_fraction": 1.0},
}
EVERY = pytest.mark.parametrize("command", [SCORE, FULL, FINETUNE])


@pytest.fixture
def talk(say):
    """A memory, and responses whose bodies end at the tokens 6, 12 and 20 of the prompt."""
    replies = [say.reply(1, 2), say.reply(1, 2), say.reply(1, 2, 1, 2)]
    return say.talk(say.memory("k", 1), *(it for reply in replies for it in (say.user(9), reply)))


def bound(probe, limit, *, is_known=True):
    """Have the probe refuse what is longer than ``limit``, which it knows at once or only then."""
    probe.context_length = limit if is_known else None

    def refuses(prompt):
        probe.context_length = limit
        return len(prompt.tokens) > limit

    probe.refuses = refuses


async def cells(host, talk, scorer, command, **tables):
    """Return what was found of each response, the remark on others, and the host."""
    async with host(talk, scorer, **ALL, **tables) as it:
        await it.run(command)
        unread = it.registry.stash[LeaveOneOut].unread
        found = [cell for score in it.heard.scores for cell in score.divergences]
        signed = {cell.entry_idx: cell.signed for cell in found}
        signed |= {each.entry_idx: each.divergence for each in it.heard.candidates}
        return signed, unread and unread.remark, it


@EVERY
@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize(("limit", "read"), [(20, [2, 4, 6]), (19, [2, 4]), (12, [2, 4]), (6, [2])])
async def test_what_the_model_reads_is_measured_as_ever_and_the_rest_is_named(
    limit, read, is_known, command, host, talk, probe
):
    whole, _, _ = await cells(host, talk, "toy", command)
    bound(probe, limit, is_known=is_known)
    found, remark, it = await cells(host, talk, "probe", command)
    assert found == {index: whole[index] for index in read}
    stats = it.state.finetune_last_run if command == FINETUNE else it.state.memory_last_run
    assert stats.error is None
    for index in (2, 4, 6):
        assert (f"#{index}" in (remark or "")) == (index not in read)


@EVERY
async def test_where_no_response_is_read_the_run_says_so_and_finds_nothing(
    command, host, talk, probe
):
    bound(probe, 5)
    found, _, it = await cells(host, talk, "probe", command)
    stats = it.state.finetune_last_run if command == FINETUNE else it.state.memory_last_run
    assert found == {}
    assert "ends beyond the 5 tokens that toy reads" in stats.error
    assert it.rows("cells") == it.rows("weights") == []
    assert probe.asked == []


async def test_a_response_before_the_memory_is_0_though_the_model_does_not_read_so_far(
    host, say, probe
):
    talk = say.talk(say.user(*[9] * 9), say.reply(1), say.memory("k", 1), say.user(9), say.reply(1))
    bound(probe, 5)
    found, _, it = await cells(host, talk, "probe", FULL)
    assert (found, it.outcomes) == ({}, {"k": "failed"})


@pytest.mark.parametrize("limit", [12, 19])
async def test_the_noise_of_what_is_read_is_measured_and_of_nothing_else(limit, host, talk, probe):
    probe.noisy = True
    bound(probe, limit)
    found, _, it = await cells(host, talk, "probe", FULL)
    assert sorted(found) == [2, 4]
    assert [cell.noise for cell in it.heard.scores[0].divergences] == [0.0, 0.0]


async def test_a_matrix_taken_up_again_says_what_it_was_measured_without(host, talk, probe):
    bound(probe, 12)
    probe.fingerprint = lambda: _fingerprint()
    options = {"settings": {"memory-scoring": {"resume": True}}}
    first, said, it = await cells(host, talk, "probe", FULL)
    probe.asked.clear()
    again, repeated, _ = await cells(host, talk, "probe", FULL, file=it.file, plugins=options)
    assert (again, repeated) == (first, said)
    assert probe.asked == []


async def _fingerprint():
    return "weights"


async def test_a_sum_over_responses_that_are_not_all_read_is_an_error_that_names_them(talk):
    scorer = ToyScorer()
    scorer.context_length = 19
    with pytest.raises(ScorerError, match=r"1 response is left out.*#6"):
        await score_memory(talk.context(), "k", scorer)


async def test_the_baseline_is_asked_for_once_though_it_lacks_some_responses(say, host, probe):
    memories = [say.memory(f"k{number}", number) for number in range(3)]
    talk = say.talk(*memories, say.user(9), say.reply(1), say.user(9), say.reply(*[1] * 20))
    bound(probe, 10)
    await cells(host, talk, "probe", FULL)
    assert [len(prompt.ranges) for prompt in probe.asked] == [1] * 4


@pytest.mark.parametrize(
    ("lengths", "says"),
    [
        ({7: 20}, "1 response is left out: it ends beyond the 8,192 tokens that m reads (#7); "),
        (
            {9: 20, 7: 9000},
            "they end beyond the 8,192 tokens that m reads (#7, #9, #7 alone has 9,000); ",
        ),
        (dict.fromkeys(range(25), 1), "#19, 5 more); "),
    ],
)
def test_the_remark_names_the_first_and_those_too_long_alone(lengths, says):
    assert says in UnreadResponses("m", 8192, lengths).remark
