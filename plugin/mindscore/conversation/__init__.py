"""Messages, chat templates, native transcripts, and the recognisers of memories."""
