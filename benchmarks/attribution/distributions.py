"""Compare the distributions over the whole vocabulary that the local model answers with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mindhooks import ScorerError, WirePrompt
from mindscore.scorers.local.scorer import LocalScorer


class Distributions:
    """The distributions of a response's tokens, of the first prompt and of the last one."""

    def __init__(self) -> None:
        self._rows: list[Any] | None = None
        self._first: dict[str, Any] = {}
        self._loaded: Any = None

    async def watch(self, scorer: LocalScorer) -> None:
        """Note the logits that the model computes, from now on."""
        # No public way gives more than the chosen tokens' values: nothing else needs them.
        self._loaded = await scorer._load()
        self._loaded._model.register_forward_hook(self._note)

    def begin(self) -> None:
        """Forget the first prompt: another conversation begins."""
        self._first = {}
        if self._loaded is not None:
            # Conversations may have a prompt in common, whose rows would not be computed again.
            self._loaded._caches.clear()

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note what is computed in the block, and nothing else."""
        self._rows = []
        try:
            yield
        finally:
            self._rows = None

    def _note(self, _model: Any, _inputs: Any, output: Any) -> None:
        if self._rows is not None:
            self._rows.append(output.logits[0].float().log_softmax(-1))

    def shifts(self, prompt: WirePrompt) -> dict[str, list[float]]:
        """Return each token's Jensen-Shannon divergence from the first prompt's, by node id.

        It is in nats, at most log 2, of the distributions noted while ``prompt`` was scored.

        Raises:
            ScorerError: the model gave the logits of other rows than were asked for.
        """
        import torch

        sizes = [end - start for start, end in prompt.ranges]
        noted = torch.cat(self._rows) if self._rows else torch.empty(0, 0)
        if len(noted) != sum(sizes):
            raise ScorerError("the model does not say the logits of the responses alone")
        found = dict(zip(prompt.node_ids, noted.split(sizes), strict=True))
        # A template that looks back has several first prompts, each of some of the responses.
        self._first = {**found, **self._first}
        return {
            node_id: jensen_shannon(self._first[node_id], logprobs).tolist()
            for node_id, logprobs in found.items()
        }


def jensen_shannon(one: Any, other: Any) -> Any:
    """Return the Jensen-Shannon divergence of each row's distribution, in nats.

    Both are tensors of log-probabilities, of shape (tokens, vocabulary).
    """
    import torch

    mixture = torch.logaddexp(one, other) - torch.log(torch.tensor(2.0))
    halves = [(it.exp() * (it - mixture)).sum(-1) for it in (one, other)]
    return (halves[0] + halves[1]) / 2
