"""Loads exported files with datasets, trains a step on each with TRL, and writes what it saw.

Run by ``test_trl.py``: these libraries warn, and leave threads.
"""

import json
import os
import sys
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "HF_DATASETS_OFFLINE": "1"}

from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

FOLDER, MODEL = Path(sys.argv[1]), sys.argv[2]
STEP = {
    "output_dir": str(FOLDER / "trained"),
    "max_steps": 1,
    "per_device_train_batch_size": 1,
    "report_to": [],
    "save_strategy": "no",
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "disable_tqdm": True,
    # Otherwise, what is beyond 1,024 tokens is cut off: the answers.
    "max_length": None,
}
tokenizer = AutoTokenizer.from_pretrained(MODEL)


def dataset(name):
    files = str(FOLDER / f"{name}.jsonl")
    return load_dataset("json", data_files=files, split="train", cache_dir=str(FOLDER / "cache"))


def tiny():
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def one_step(trainer, *columns):
    """Every batch as the model gets it, and what a step of training says of itself."""
    batches = [
        {column: batch[column].tolist() for column in columns}
        for batch in trainer.get_train_dataloader()
    ]
    weights = next(trainer.model.parameters())
    before = weights.detach().clone()
    said = trainer.train()
    changed = bool((weights.detach() != before).any())
    return {"batches": batches, "loss": said.training_loss, "changed": changed}


def supervised(name, model):
    found = dataset(name)
    trainer = SFTTrainer(
        model=model, args=SFTConfig(**STEP), train_dataset=found, processing_class=tokenizer
    )
    seen = one_step(trainer, "input_ids", "labels")
    return {"columns": found.column_names, "rows": len(found), **seen}


def preferred(name):
    found = dataset(name)
    trainer = DPOTrainer(
        model=tiny(),
        ref_model=tiny(),
        args=DPOConfig(**STEP),
        train_dataset=found,
        processing_class=tokenizer,
    )
    seen = one_step(trainer, "input_ids", "completion_mask")
    return {"columns": found.column_names, "rows": len(found), **seen}


seen = {
    "input_ids": supervised("input_ids", AutoModelForCausalLM.from_pretrained(MODEL)),
    "prompt_completion": supervised("prompt_completion", tiny()),
    "messages": supervised("messages", tiny()),
    "preference": preferred("preference"),
}
(FOLDER / "seen.json").write_text(json.dumps(seen))
