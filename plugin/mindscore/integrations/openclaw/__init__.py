"""OpenClaw: a plugin of its own, in JavaScript, that sends each turn to ``mindscore collect``."""
