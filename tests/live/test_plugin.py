"""The plugin for vLLM, in a real one: ``/v1/score`` by the original protocol."""

import pytest
from tests.live import plugin_checks
from tests.live.plugin_checks import CLOSE
from tests.live.server import NAME

on = pytest.mark.parametrize


@pytest.fixture
def address(server):
    return plugin_checks.Server(server.url, NAME)


@on("server", ["equipped"], indirect=True)
@on("check", ["description", "errors", "details", "reuse", "cancellation"])
def test_it_does(check, address):
    getattr(plugin_checks, f"check_{check}")(address)


@on("server", ["equipped"], indirect=True)
def test_totals_are_those_of_whole_prompts_and_shared_beginnings_are_computed_once(address):
    found = plugin_checks.check_fuzz(address, prompts=50)
    assert found["computed"] < 0.9 * found["sent"]


@on("server", ["equipped"], indirect=True)
def test_what_agents_have_computed_is_used(address):
    prompt, (start, end) = [number * 7919 % 40_000 + 100 for number in range(700)], (640, 700)
    asked = {"model": NAME, "prompt": prompt[:start], "max_tokens": 1}
    assert address.ask("/completions", asked)[0] == 200
    answer = address.score(prompt, [[start, end]])
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] >= 4 * 128
    right = sum(address.whole(prompt)[start:end])
    assert answer["scores"][0]["total_logprob"] == pytest.approx(right, abs=CLOSE)


@on("server", ["uncached"], indirect=True)
def test_without_a_prefix_cache_all_is_computed(address):
    plugin_checks.check_no_reuse(address)
