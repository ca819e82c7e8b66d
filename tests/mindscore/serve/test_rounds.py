"""Rounds of training with the real model: the ledger says what was learnt, the guard refuses."""

import json

import pytest
from tests.bench.ledger import ROUNDS, Commands, run_poisoned_round, run_rounds


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.timeout(1800)
def test_two_rounds_are_in_the_ledger_and_a_poisoned_third_is_refused(tmp_path):
    commands = Commands(tmp_path)
    with commands.server():
        first, second = run_rounds(commands)
        ledger = json.loads(commands.run("ledger", "--json"))
        assert [it["round"] for it in ledger["rounds"]] == ["base", first, second]
        found = {it["key"]: it for it in ledger["memories"]}
        assert found.keys() == {key for talk in ROUNDS for key in talk}
        for number, talk in enumerate(ROUNDS):
            for key in talk:
                rounds = found[key]["rounds"]
                # Its first standing is that of before the round that taught it.
                assert [it is None for it in rounds[:number]] == [True] * number
                before, after = rounds[number : number + 2]
                assert before["state"] == "first"
                assert before["with_memories"] - before["without_memories"] >= 1
                assert after["without_memories"] > before["without_memories"]
                assert after["share"] > 0.3
                assert after["reworded"] > before["reworded"]
        # What the first round has taught, the second has not undone.
        for key in ROUNDS[0]:
            assert found[key]["rounds"][2]["share"] > found[key]["rounds"][1]["share"] / 2

        job, refusal = run_poisoned_round(commands)
        guard = job["guard"]
        assert (job["status"], guard["passed"], guard["limit"]) == ("succeeded", False, 0.05)
        assert guard["after"] - guard["before"] > 0.05
        assert f"{guard['before']:.3f} → {guard['after']:.3f}" in refusal["error"]["message"]
        assert commands.ask("/models")["data"][0]["adapter"] == f"{second}/adapter"
