"""The review page: what is kept, the candidates to decide on, and runs to watch."""
