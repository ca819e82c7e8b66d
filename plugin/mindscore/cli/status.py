"""Exit statuses."""

DONE = 0
FAILED = 1
"""The run failed, wholly or for some memories, or nobody took the command."""
WRONG = 2
"""Wrong usage, configuration or input."""
INTERRUPTED = 130
