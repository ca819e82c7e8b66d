"""hermes-agent: its plugin, reader and recogniser."""
