"""A model of some thousand weights, for what does not depend on what a model says."""

from pathlib import Path

VOCABULARY = 400
CONTEXT_LENGTH = 256


def write_tiny_model(
    folder: Path, tokenizer_file: Path, layers: int = 2, length: int = CONTEXT_LENGTH, **more: int
) -> Path:
    """Write a random Llama, always the same, and a tokenizer to ``folder``."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=length,
        # With the usual, all tokens are about as likely, whatever an adapter does.
        initializer_range=0.3,
        **more,
    )
    with torch.random.fork_rng():
        torch.manual_seed(6)
        LlamaForCausalLM(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_file=str(tokenizer_file)).save_pretrained(folder)
    return folder


SMALL = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
"""The configuration of a small model of any architecture."""
