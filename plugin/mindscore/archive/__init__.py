"""Whole archives: the pass over many conversations, and the advice on their memories."""
