"""Leave-one-out: memories, prompts, the one place where a scorer is called, the arithmetic."""
