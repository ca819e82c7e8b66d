"""Fine-tunes a LoRA adapter of the local model on token ids, in a process of its own."""
