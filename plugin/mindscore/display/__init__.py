"""Tables and JSON for a terminal."""
