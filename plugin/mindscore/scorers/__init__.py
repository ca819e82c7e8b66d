"""Models behind the ``Scorer`` protocol."""
