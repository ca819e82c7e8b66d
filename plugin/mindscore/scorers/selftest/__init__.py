"""The test of a remote model server before the first score of a run.

Servers have answered with shifted, stale or constant log-probabilities and HTTP status 200; such
answers make divergences that look like any others. Four short prompts show whether a server's
answers can be those of a causal language model that was given these very tokens.

No threshold is tuned to one model. The checks ask for what every language model with a context
has in common, and so has the toy scorer: a list said a second time is likelier than the first
time, a token that breaks into it is not, nothing later changes what was before, the same asked
twice is the same, parts add up to the whole. ``mindscore.scorers.selftest.checks`` says what each
one catches, and by how much a healthy model passes.
"""

from mindscore.scorers.selftest.tester import ensure_tested, self_test

__all__ = ["ensure_tested", "self_test"]
