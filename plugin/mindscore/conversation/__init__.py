"""Messages, chat templates, native transcripts, and their rendering as a context."""

from mindscore.conversation.conversation import Conversation, Transcript
from mindscore.conversation.message import Message, ToolCall

__all__ = ["Conversation", "Message", "ToolCall", "Transcript"]
