"""LangChain: its middleware, and the reader of its messages."""
