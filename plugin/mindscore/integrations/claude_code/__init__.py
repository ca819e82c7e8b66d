"""Claude Code: its session files, and what ``claude -p`` prints."""

from mindscore.integrations.claude_code.reader import ClaudeCodeReader
from mindscore.integrations.claude_code.stream import ClaudeStreamReader

__all__ = ["ClaudeCodeReader", "ClaudeStreamReader"]
