"""Archives: passes over many conversations, and what they tell of the memories together."""
