"""Conversations that other programs keep, in their own formats."""
