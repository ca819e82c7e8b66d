"""Conversations as chat messages, the way agents and servers exchange them."""
