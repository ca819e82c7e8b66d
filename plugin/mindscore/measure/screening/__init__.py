"""Screening: cheap estimates for all memories, exact values for few, and what may be missed."""
