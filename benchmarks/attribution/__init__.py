"""Measure who finds the text that a response rests on: methods of attribution, on labelled sets."""
