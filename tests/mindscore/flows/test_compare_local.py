"""compare-scoring with models in this process: an adapter, and another tokenizer."""

import json
import warnings

import pytest

from mindscore.conversation.native import read_transcript
from mindscore.session.session import Session

from ..tiny_model import write_tiny_model

LINES = [
    {"role": "memory", "key": "tea", "content": "Nora drinks rooibos."},
    *(
        {"role": role, "content": f"{text} {number}."}
        for number in range(9)
        for role, text in (("user", "What is it"), ("assistant", "It is rooibos"))
    ),
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, tokenizer_file):
    return str(write_tiny_model(tmp_path_factory.mktemp("tiny"), tokenizer_file, length=2048))


@pytest.fixture(scope="module")
def adapter(tiny, tmp_path_factory):
    """The folder of an adapter of the tiny model that changes what it says."""
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("adapter")
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.manual_seed(0)
        config = peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
        model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(tiny), config)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.data.normal_(0, 0.1)
        model.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def compared(tiny, tmp_path):
    """Compares the tiny model with another one on a conversation."""
    file = tmp_path / "talk.jsonl"
    file.write_text("".join(json.dumps(it) + "\n" for it in LINES))

    async def compared(other, model=tiny):
        server = {
            "model": model,
            "device": "cpu",
            "toy": {"scorer": "toy", "model": "toy"},
            "bf16": {"dtype": "bfloat16"},
        }
        tables = {
            "server": server,
            "store": {"url": f"sqlite:///{tmp_path}/s.db"},
            "plugins": {
                "disabled": ["score-recorder"],
                "settings": {"compare-scoring": {"with": other}},
            },
        }
        async with Session(read_transcript(file)).open(tables) as session:
            result = await session.attempt("compare", ())
        assert result.error is None
        return result.comparison

    return compared


async def test_the_folder_of_an_adapter_is_the_same_model_with_it(compared, adapter, tiny):
    found = await compared(adapter)
    assert (found.unit, len(found.responses), len(found.beyond_noise)) == ("nats", 9, 9)
    assert found.mean.low < found.mean.difference < found.mean.high
    assert any(it.parts_at for it in found.responses)


async def test_the_model_beside_itself_shows_nothing_to_the_last_bit(compared, tiny):
    found = await compared(tiny)
    assert {it.difference for it in found.responses} == {0.0}
    assert [it.verdict for it in found.memories] == ["unchanged"]


async def test_a_model_of_another_tokenizer_is_compared_by_bytes(compared):
    found = await compared("toy")
    assert (found.unit, len(found.responses)) == ("nats per byte", 9)
    assert found.mean.low is not None
    assert any("different tokenizers" in it for it in found.remarks)


@pytest.mark.slow
@pytest.mark.model
async def test_rounding_to_bfloat16_makes_no_clear_difference(compared):
    found = await compared("bf16", "smollm2")
    assert any(it.difference for it in found.responses)
    assert len(found.beyond_noise) <= 1
    assert (found.mean.sign, found.need.sign) == (0, 0)
    assert found.memories[0].change.sign == 0
