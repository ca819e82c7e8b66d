"""deepagents: its harness profile and recogniser."""
