"""Codex CLI: the reader of its rollouts, and the recogniser of the memories in its prompts."""
