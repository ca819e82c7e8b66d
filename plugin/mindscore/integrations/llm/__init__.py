"""llm: its plugin, and the reader of its logs."""
