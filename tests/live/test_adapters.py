"""Scorers against a real vLLM: the values of ``local``, whatever the template and the cache."""

import pytest

on = pytest.mark.parametrize
SCORERS = ["vllm", "auto", "openai"]


@on("server", ["equipped", "uncached"], indirect=True)
@on("conversation", ["chat", "lines", "long"])
@on("scorer", SCORERS)
def test_values_are_those_of_local(scorer, conversation, server, score, assert_right):
    settings = {"tokenizer": server.model} if scorer == "openai" else {}
    assert_right(conversation, score(conversation, scorer=scorer, **settings).signed)


@on("server", ["plain"], indirect=True)
@on("scorer", SCORERS)
def test_values_of_a_real_model_are_those_of_local(scorer, server, score, assert_right):
    settings = {"tokenizer": server.model} if scorer == "openai" else {}
    assert_right("lines", score("lines", scorer=scorer, **settings).signed)


@on("server", ["plain"], indirect=True)
@on("scorer", ["vllm", "auto"])
def test_the_self_test_passes_with_a_real_model(scorer, server, score, assert_right):
    assert_right("lines", score("lines", scorer=scorer, self_test="true").signed)


@on("server", ["equipped"], indirect=True)
@on("scorer", SCORERS)
def test_the_self_test_finds_random_weights_out_by_nothing_but_their_text(scorer, server, score):
    settings = {"tokenizer": server.model} if scorer == "openai" else {}
    ran = score("long", scorer=scorer, self_test="true", **settings)
    assert ran.status == 1
    assert "alignment: " in ran.err
