"""Ask captum for its leave-one-out: the same values, by another's code."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.attribution.measuring import Measuring, holding
from mindhooks import WirePrompt
from mindscore.measure.memories import skip_none, skip_only
from mindscore.scorers.local.scorer import LocalScorer


def is_installed() -> bool:
    """Return whether captum is there: the extra ``bench`` installs it."""
    return importlib.util.find_spec("captum") is not None


async def feature_ablation(case: Measuring) -> dict[str, list[float]]:
    """Return captum's FeatureAblation of each answer, of the same ids, one answer at a time."""
    import torch
    from captum.attr import FeatureAblation, LLMAttribution, TextTemplateInput
    from transformers import AutoTokenizer

    scorer: Any = case.scorer.inner
    assert isinstance(scorer, LocalScorer)  # noqa: S101 - no other has a model here
    loaded = await scorer._load()
    tokenizer: Any = AutoTokenizer.from_pretrained(loaded.tokenizer.location)
    attribution = LLMAttribution(FeatureAblation(loaded._model), tokenizer)
    # Made before captum asks, which cannot await them: it leaves out one memory at a time.
    kept = {frozenset(case.keys): await case.prompts(skip_none)}
    for key in case.keys:
        kept[frozenset(case.keys) - {key}] = await case.prompts(skip_only(key))

    class Memories(TextTemplateInput):  # type: ignore[misc]
        def __init__(self, node_id: str) -> None:
            super().__init__("{}" * len(case.keys), case.keys)
            self._node_id = node_id

        def to_model_input(self, perturbed_tensor: Any = None) -> Any:
            present = self.to_tensor() if perturbed_tensor is None else perturbed_tensor
            return torch.tensor([self.prompt((present[0] > 0.5).tolist())])

        def prompt(self, present: Sequence[bool]) -> tuple[int, ...]:
            keys = (key for key, is_in in zip(case.keys, present, strict=True) if is_in)
            whole = holding(self._node_id, kept[frozenset(keys)])
            start, end = whole.ranges[whole.node_ids.index(self._node_id)]
            case.scorer.charge(WirePrompt(whole.tokens[:end], (), ((start, end),), ("",)), 0.0)
            return whole.tokens[:start]

    found = {}
    for node_id in case.node_ids:
        target = torch.tensor(case.answer(node_id))
        started = time.perf_counter()
        with torch.inference_mode():
            given = attribution.attribute(Memories(node_id), target, forward_in_tokens=False)
        whole = holding(node_id, kept[frozenset(case.keys)])
        case.scorer.charge(whole, time.perf_counter() - started)
        found[node_id] = given.seq_attr.tolist()
    return found
