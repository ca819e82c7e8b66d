"""What a response asks of a tool."""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ToolCall:
    """What a response asked of a tool; ``arguments`` are JSON text."""

    name: str
    arguments: str

    def text(self) -> str:
        """As Hermes-style ChatML templates print it."""
        return f'<tool_call>\n{{"name": {json.dumps(self.name)}, "arguments": {self.arguments}}}\n</tool_call>'  # noqa: E501
