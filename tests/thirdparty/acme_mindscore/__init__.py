"""A third party's plugins for mindhooks, as a separate distribution."""
