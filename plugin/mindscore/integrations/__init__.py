"""Agents, frameworks and tools, each in a place of its own."""
