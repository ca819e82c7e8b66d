"""Messages, chat templates, native transcripts, and their rendering as a context."""
