import logging
from types import SimpleNamespace

import pytest

from mindscore.integrations.vllm.engine import LIMIT, REQUEST_PREFIX, limited, register

MANAGER = "v1__core__kv_cache_manager"
HIT = 96
"""How long the longest cached prefix is; blocks are of 16 tokens."""


class Manager32:
    """As in 0.32: the longest hit ends before the request's last token."""

    def get_computed_blocks(self, request):
        return self.look_up(request, request.num_tokens - 1)

    def look_up(self, request, longest):
        if request.skip_reading_prefix_cache:
            return "none", 0, 0
        return request.block_hashes, min(HIT, longest) // 16 * 16, 0


class Manager33(Manager32):
    """As in 0.33: the scheduler may limit it."""

    def get_computed_blocks(self, request, max_cache_hit_length=None):
        if max_cache_hit_length is None:
            max_cache_hit_length = request.num_tokens - 1
        return self.look_up(request, max_cache_hit_length)


def request(limit=None, *, tokens=200, id_=REQUEST_PREFIX + "1", skip=True, **arguments):
    extra = {**arguments, **({} if limit is None else {LIMIT: limit})}
    return SimpleNamespace(
        request_id=id_,
        num_tokens=tokens,
        block_hashes="found",
        skip_reading_prefix_cache=skip,
        sampling_params=SimpleNamespace(extra_args=extra or None),
    )


@pytest.fixture(params=[("0.32.0", Manager32), ("0.33.0", Manager33)], ids=["0.32", "0.33"])
def manager(request, fake_vllm, monkeypatch):
    """Return a manager of a vLLM that loaded the plugin."""
    version, kind = request.param
    patched = type("KVCacheManager", (kind,), {"get_computed_blocks": kind.get_computed_blocks})
    fake_vllm(version, **{MANAGER: {"KVCacheManager": patched}})
    monkeypatch.setenv("VLLM_PLUGINS", "other,mindscore")
    register()
    assert patched.get_computed_blocks is not kind.get_computed_blocks
    return patched()


@pytest.mark.parametrize(
    ("limit", "hit"), [(199, 96), (96, 96), (95, 80), (80, 80), (17, 16), (16, 16), (15, 0), (1, 0)]
)
def test_a_request_for_scores_reuses_blocks_up_to_its_limit(manager, limit, hit):
    asked = request(limit)
    assert manager.get_computed_blocks(asked) == ("found", hit, 0)
    # What loads prefixes from elsewhere reads this, and has no limit.
    assert asked.skip_reading_prefix_cache is True
    assert asked.num_tokens == 200


@pytest.mark.parametrize(
    "limit", [0, -1, True, "64", 64.0, [64], None], ids=lambda it: type(it).__name__ + str(it)
)
def test_a_request_for_scores_without_a_limit_reuses_nothing(manager, limit):
    assert manager.get_computed_blocks(request(limit)) == ("none", 0, 0)


def test_the_requests_of_others_are_left_alone(manager):
    assert manager.get_computed_blocks(request(id_="cmpl-1", skip=False)) == ("found", 96, 0)
    assert manager.get_computed_blocks(request(id_="cmpl-1", skip=True)) == ("none", 0, 0)
    # A client can send extra arguments, and not choose how the request's id begins.
    assert manager.get_computed_blocks(request(64, id_="cmpl-1")) == ("none", 0, 0)
    assert manager.get_computed_blocks(request(other=1)) == ("none", 0, 0)
    pooling = SimpleNamespace(num_tokens=50, block_hashes="p", skip_reading_prefix_cache=False)
    assert manager.get_computed_blocks(pooling) == ("p", 48, 0)


def test_the_plugin_may_be_loaded_many_times(manager):
    patched = type(manager).get_computed_blocks
    register()
    assert type(manager).get_computed_blocks is patched


def test_a_limit_of_the_schedulers_own_stays():
    lookup = limited(Manager33.get_computed_blocks)
    assert lookup(Manager33(), request(80), 40) == ("found", 32, 0)
    assert lookup(Manager33(), request(40), 80) == ("found", 32, 0)
    assert lookup(Manager33(), request(40), max_cache_hit_length=None) == ("found", 32, 0)
    assert lookup(Manager33(), request(skip=False), 40) == ("found", 32, 0)


def test_a_lookup_that_passes_over_the_limit_counts_as_none():
    def careless(self, request):
        return ("none", 0, 0) if request.skip_reading_prefix_cache else ("found", 96, 0)

    assert limited(careless)(None, request(80)) == ("none", 0, 0)
    assert limited(careless)(None, request(96)) == ("found", 96, 0)


@pytest.mark.parametrize("named", [None, "", "other", "mindscore-other", " mindscore"])
def test_nothing_is_touched_where_it_is_not_named(fake_vllm, monkeypatch, named, caplog):
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)
    if named is not None:
        monkeypatch.setenv("VLLM_PLUGINS", named)
    patched = type("KVCacheManager", (Manager32,), {})
    fake_vllm("0.32.0", **{MANAGER: {"KVCacheManager": patched}})
    register()
    assert patched.get_computed_blocks is Manager32.get_computed_blocks
    assert not caplog.records


@pytest.mark.parametrize("version", ["0.31.9", "0.34.0", "0.3", "0.320.1", "1.0", "dev", ""])
def test_another_vllm_is_refused_by_name_and_not_patched(fake_vllm, monkeypatch, version, caplog):
    monkeypatch.setenv("VLLM_PLUGINS", "mindscore")
    patched = type("KVCacheManager", (Manager32,), {})
    fake_vllm(version, **{MANAGER: {"KVCacheManager": patched}})
    with caplog.at_level(logging.WARNING, "vllm.mindscore"):
        register()
    assert patched.get_computed_blocks is Manager32.get_computed_blocks
    [record] = caplog.records
    assert f"works with vLLM 0.32 and 0.33, and this is vLLM {version}:" in record.getMessage()


def test_a_lookup_of_another_form_is_not_wrapped(fake_vllm, monkeypatch, caplog):
    class Manager:
        def get_computed_blocks(self, request, hashes):
            raise AssertionError("not called")

    original = Manager.get_computed_blocks
    monkeypatch.setenv("VLLM_PLUGINS", "mindscore")
    fake_vllm("0.33.1", **{MANAGER: {"KVCacheManager": Manager}})
    register()
    assert Manager.get_computed_blocks is original
    assert "takes self, request, hashes" in caplog.text


def test_a_vllm_without_that_module_starts_all_the_same(fake_vllm, monkeypatch, caplog):
    monkeypatch.setenv("VLLM_PLUGINS", "mindscore")
    fake_vllm("0.32.0")
    register()
    assert "cached prefixes are not reused for scores: ModuleNotFoundError" in caplog.text
