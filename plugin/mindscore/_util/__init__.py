"""Helpers that know no word of the domain."""
