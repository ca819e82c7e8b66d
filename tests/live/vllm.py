"""A real vLLM beside ``local``, on the same weights: the same scores, whatever the template.

python -m tests.live.vllm

The model is a random Llama of two layers with the tokenizer of SmolLM2. Its chat templates are not
ChatML: one only adds to a prompt, as Llama 3's does, the other drops earlier thoughts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.live.environment import vllm_command

PORT = 8731
CLOSE = 1e-3
"""Nats by which a score may differ."""

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

# One that lacks what vLLM adds, and one whose keys it puts in another order.
TOOLS = [
    {"type": "function", "function": {"name": "stock", "parameters": {"type": "object"}}},
    {
        "type": "function",
        "function": {"strict": True, "parameters": {}, "description": "Sell.", "name": "sell"},
    },
]
CALL = {"name": "stock", "arguments": '{"item": "oolong", "at": [1, 2]}'}
MESSAGES = [
    {
        "role": "system",
        "content": "You help in a tea shop.\n- Ines drinks oolong.\n- Her dog is called Max .",
    },
    {"role": "user", "content": "How much of my tea is left? "},
    {
        "role": "assistant",
        "content": "",
        "reasoning_content": "Oolong: I look.",
        "tool_calls": [{"id": "call_0001", "type": "function", "function": CALL}],
    },
    {"role": "tool", "tool_call_id": "call_0001", "content": "3 tins"},
    {"role": "assistant", "content": "Three tins of oolong.", "reasoning_content": "Three."},
    {"role": "user", "content": "And who barks? 世界"},
    {"role": "assistant", "content": "Max does.", "reasoning_content": "The dog."},
]
MEMORIES = {"tea": "Ines drinks oolong.", "dog": "Her dog is called Max ."}
LINES = [
    {"role": "system", "content": "You help in a tea shop."},
    *({"role": "memory", "key": key, "content": text} for key, text in MEMORIES.items()),
    *({"role": role, "content": text} for role, text in (
        ("user", "What is my tea?"),
        ("assistant", "It is oolong."),
        ("user", "And who barks?"),
        ("assistant", "Max does."),
    )),
]  # fmt: skip


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
        max_position_embeddings=4096,
        initializer_range=0.3,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(6)
    LlamaForCausalLM(config).save_pretrained(folder)


@contextmanager
def served(vllm: Path, model: Path, log: Path) -> Iterator[str]:
    """Serve ``model`` and yield the address; what vLLM prints goes to ``log``."""
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    command = [str(vllm), "serve", str(model), "--served-model-name", "m", "--dtype", "float32"]
    command += ["--max-model-len", "4096", "--enforce-eager", "--host", "127.0.0.1"]
    with log.open("w") as said:
        process = subprocess.Popen(
            [*command, "--port", str(PORT)],
            env={**os.environ, **quiet},
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait_for(process, log)
            yield f"http://127.0.0.1:{PORT}/v1"
        finally:
            process.terminate()
            process.wait(60)


def _wait_for(process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        if process.poll() is not None:
            sys.exit(f"vLLM ended:\n{log.read_text(errors='replace')[-3000:]}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=5):
                return
        except OSError:
            time.sleep(1)
    sys.exit("vLLM was not up after 10 minutes")


def matrix(conversation: list[str], **server: object) -> tuple[list[list[float]], int]:
    """Return what ``mindscore score --full`` finds, signed, and the seconds that it took."""
    with tempfile.TemporaryDirectory() as folder:
        options = {"server." + name: value for name, value in server.items()}
        options["store.url"] = f"sqlite:///{folder}/store.sqlite3"
        # Random weights are no language model, as which the self-test takes a server's.
        options["server.self_test"] = "false"
        given = [it for name, value in options.items() for it in ("--set", f"{name}={value}")]
        command = [sys.executable, "-m", "mindscore", "score", *conversation, "--full", "--json"]
        started = time.monotonic()
        done = subprocess.run([*command, *given], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{server}: exit status {done.returncode}: {done.stderr}")
    return json.loads(done.stdout)["signed"], round(time.monotonic() - started)


def compare(conversation: list[str], model: Path, url: str) -> None:
    """Compare each scorer with ``local``.

    Raises:
        SystemExit: one differs.
    """
    expected, _ = matrix(conversation, scorer="local", model=model)
    values = [it for row in expected for it in row]
    assert any(abs(it) > CLOSE for it in values), "no memory has an effect"
    scorers = {"vllm": {}, "auto": {}, "openai": {"tokenizer": model}}
    for scorer, more in scorers.items():
        found, seconds = matrix(conversation, scorer=scorer, model="m", base_url=url, **more)
        most = max(
            abs(one - other)
            for one, other in zip(values, (it for row in found for it in row), strict=True)
        )
        sys.stdout.write(
            f"  {Path(conversation[0]).name}, {scorer}: {most:.1e} nats, {seconds} s\n"
        )
        if most > CLOSE:
            sys.exit(f"{scorer}: {found}, local: {expected}")


def main() -> None:
    """Compare them for each template and conversation."""
    vllm = vllm_command()
    if vllm is None:
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "chat.json").write_text(json.dumps({"messages": MESSAGES, "tools": TOOLS}))
        (folder / "memories.json").write_text(json.dumps(MEMORIES))
        (folder / "lines.jsonl").write_text("\n".join(map(json.dumps, LINES)))
        conversations = [
            [str(folder / "chat.json"), "--memories", str(folder / "memories.json")],
            [str(folder / "lines.jsonl")],
        ]
        for kind, chat_template in TEMPLATES.items():
            model = folder / kind
            write_model(model, chat_template)
            with served(vllm, model, folder / "vllm.log") as url:
                sys.stdout.write(f"a template that {kind.replace('-', ' ')}:\n")
                for conversation in conversations:
                    compare(conversation, model, url)


if __name__ == "__main__":
    main()
