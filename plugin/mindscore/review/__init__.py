"""The review page: stored results, candidates to decide on, and runs to watch."""
