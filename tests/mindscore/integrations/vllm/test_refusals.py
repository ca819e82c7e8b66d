from types import SimpleNamespace

import pytest

from mindscore.integrations.vllm.refusals import fault_of


def config(*, lora=None, cache=False, speculative=None, **model):
    """Make the part of a ``VllmConfig`` that counts, of a plain server unless told otherwise."""
    plain = {"logprobs_mode": "raw_logprobs", "is_encoder_decoder": False, "is_diffusion": False}
    return SimpleNamespace(
        model_config=SimpleNamespace(model="acme/m", **{**plain, **model}),
        cache_config=SimpleNamespace(kv_sharing_fast_prefill=cache),
        speculative_config=speculative,
        lora_config=lora,
    )


def adapters(*modules):
    return SimpleNamespace(target_modules=list(modules) or None)


@pytest.mark.parametrize(
    "served",
    [
        config(),
        config(logprobs_mode="processed_logprobs"),
        config(lora=adapters("q_proj", "v_proj")),
    ],
)
def test_a_server_whose_rows_are_log_probabilities_is_used(served):
    assert fault_of(served) is None


@pytest.mark.parametrize(
    ("served", "words"),
    [
        (config(logprobs_mode="raw_logits"), "start it with raw_logprobs"),
        (config(logprobs_mode="processed_logits"), "--logprobs-mode processed_logits"),
        (config(speculative=SimpleNamespace(method="mtp")), "without --speculative-config"),
        (config(cache=True), "--kv-sharing-fast-prefill"),
        (config(lora=adapters()), "--lora-target-modules"),
        (config(lora=adapters("q_proj", "model.lm_head")), "without lm_head"),
        (config(is_encoder_decoder=True), "acme/m is not a causal language model"),
        (config(is_diffusion=True), "acme/m is not a causal language model"),
    ],
)
def test_any_other_is_refused_with_what_to_change(served, words):
    assert words in str(fault_of(served))
