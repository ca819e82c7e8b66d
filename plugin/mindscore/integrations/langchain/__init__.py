"""LangChain: its callback handler, and the reader of its messages."""
