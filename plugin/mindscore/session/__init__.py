"""One conversation and one registry, and what a command found."""
