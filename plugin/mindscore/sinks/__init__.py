"""Where responses go that a model is to be trained on: the default sinks of ``mindhooks``."""
