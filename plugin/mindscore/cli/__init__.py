"""The command ``mindscore``."""

from mindscore.cli.app import main

__all__ = ["main"]
