"""Scorers against a real vLLM: the values of ``local``, whatever the template and the cache."""

import pytest
from tests.live.server import BARE, STOCK

on = pytest.mark.parametrize
# How each is asked: by the plugin, /inference/v1/generate, /v1/completions twice.
WAYS = [
    pytest.param("vllm", (), id="vllm by the plugin"),
    pytest.param("auto", (), id="auto by the plugin"),
    pytest.param("vllm", STOCK, id="vllm"),
    pytest.param("auto", STOCK, id="auto"),
    pytest.param("vllm", BARE, id="vllm in full"),
    pytest.param("openai", (), id="openai"),
]


@pytest.fixture
def ask(server, paths, score):
    """Scores by a scorer: ``ask("openai", "lines", self_test="true")``."""

    def ask(scorer, conversation, **more):
        if scorer == "openai":
            more["tokenizer"] = server.model
        return score(conversation, scorer=scorer, base_url=paths, **more)

    return ask


@on("server", ["equipped", "uncached"], indirect=True)
@on("conversation", ["chat", "lines", "late"])
@on(("scorer", "paths"), WAYS, indirect=["paths"])
def test_values_are_those_of_local(scorer, conversation, ask, assert_right):
    assert_right(conversation, ask(scorer, conversation).signed)


@on("server", ["equipped"], indirect=True)
@on(("paths", "most"), [((), 0.8), (STOCK, 0.8), (BARE, 1)], indirect=["paths"])
def test_what_prompts_share_is_computed_once_where_the_server_can(paths, most, ask):
    stats = ask("vllm", "late").stats
    assert stats["prompt_tokens"] > 5_000
    assert stats["computed_tokens"] <= most * stats["prompt_tokens"]


@on("server", ["plain"], indirect=True)
@on("paths", [()], indirect=True)
@on("scorer", ["vllm", "auto", "openai"])
def test_the_self_test_passes_with_a_real_model(scorer, ask, assert_right):
    assert_right("lines", ask(scorer, "lines", self_test="true").signed)


@on("server", ["equipped"], indirect=True)
@on(("scorer", "paths"), WAYS, indirect=["paths"])
def test_the_self_test_finds_random_weights_out_by_nothing_but_their_text(scorer, ask):
    ran = ask(scorer, "late", self_test="true")
    assert ran.status == 1
    assert "alignment: " in ran.err
