"""Random models to serve: Llamas of two layers with the tokenizer of SmolLM2.

Their chat templates are not ChatML: one only adds to a prompt, as Llama 3's does, the other drops
earlier thoughts.
"""

from __future__ import annotations

from pathlib import Path

BOS, START, END, STOP = "<|begin|>", "<|start|>", "<|message|>", "<|stop|>"
SPEAKER = "{{ '" + START + "' + message.role + '" + END + "' }}"
CALLS = (
    "{% for call in message.tool_calls or [] %}{{ '\\n[call ' + call.function.name + ' ' + "
    "call.function.arguments | tojson + ']' }}{% endfor %}"
)
OPENING = (
    "{{ bos_token }}{% if tools %}{{ '"
    + START
    + "tools"
    + END
    + "' + tools | tojson + '"
    + STOP
    + "' }}{% endif %}"
)
ASKING = "{% if add_generation_prompt %}{{ '" + START + "assistant" + END + "' }}{% endif %}"


def template(thought: str) -> str:
    """Return a chat template that prints ``thought`` before a response's text."""
    return (
        f"{OPENING}{{% for message in messages %}}{SPEAKER}{thought}"
        f"{{{{ message.content | trim }}}}{CALLS}{{{{ '{STOP}' }}}}{{% endfor %}}{ASKING}"
    )


TEMPLATES = {
    "only-adds": template(""),
    "looks-back": (
        "{% set ns = namespace(asked=-1) %}{% for message in messages %}{% if message.role == "
        "'user' %}{% set ns.asked = loop.index0 %}{% endif %}{% endfor %}"
        + template(
            "{% if message.reasoning_content and loop.index0 > ns.asked %}{{ '<think>\\n' + "
            "message.reasoning_content + '\\n</think>\\n\\n' }}{% endif %}"
        )
    ),
}


def write_model(folder: Path, chat_template: str) -> None:
    """Write a random model, always the same, with ``chat_template`` and a BOS to ``folder``."""
    import torch
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from mindscore.scorers.local.weights import SMOLLM2, locate

    tokenizer = AutoTokenizer.from_pretrained(locate(SMOLLM2))
    tokenizer.add_special_tokens(
        {"bos_token": BOS, "eos_token": STOP, "additional_special_tokens": [START, END]}
    )
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.bos_token_id)]
    )
    tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        # Heads of 32: vLLM's attention on CPUs knows no smaller ones.
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=8192,
        initializer_range=0.3,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(6)
    LlamaForCausalLM(config).save_pretrained(folder)
