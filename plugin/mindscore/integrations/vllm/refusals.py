"""Settings of a vLLM server with which its log-probabilities of prompts cannot be used."""

from __future__ import annotations

from typing import Any


def fault_of(config: Any) -> str | None:
    """Return why log-probabilities under this ``VllmConfig`` cannot be used, and what to change."""
    model = config.model_config
    if model.logprobs_mode in ("raw_logits", "processed_logits"):
        return (
            f"--logprobs-mode {model.logprobs_mode} has vLLM return logits: start it with "
            "raw_logprobs"
        )
    if config.speculative_config is not None:
        return (
            "with speculative decoding vLLM's log-probabilities of prompts can be wrong "
            "(vllm-project/vllm issue 53488): start it without --speculative-config"
        )
    if config.cache_config.kv_sharing_fast_prefill:
        return (
            "with --kv-sharing-fast-prefill vLLM's log-probabilities of prompts are wrong: start "
            "it without"
        )
    lora = config.lora_config
    if lora and any(it.endswith("lm_head") for it in lora.target_modules or ["lm_head"]):
        return (
            "vLLM applies adapters of the output layer to the wrong rows of a prompt, and on a CPU "
            "that ends its engine: start it with --lora-target-modules and the names of the "
            "modules that the adapters change (q_proj v_proj …), without lm_head"
        )
    if model.is_encoder_decoder or model.is_diffusion:
        return f"{model.model} is not a causal language model"
    return None
