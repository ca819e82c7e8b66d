"""The places of ranges once vLLM has put each image's placeholder in the place of its token."""

from __future__ import annotations

from collections.abc import Sequence

from mindscore.integrations.vllm.protocol import RequestError, Span


def move_ranges(
    ranges: Sequence[Span], sent: Sequence[int], expanded: Sequence[int], images: Sequence[Span]
) -> list[Span]:
    """Return ``ranges`` of the tokens ``sent`` as ranges of the ``expanded`` prompt.

    ``images`` are the spans in ``expanded`` that stand for images, in order. The tokens between
    them must be those that were sent, and what each replaces must be the same tokens every time.

    Raises:
        RequestError: the two do not correspond so, or a range touches an image.
    """
    replaced = _replaced(sent, expanded, images)
    moved = []
    for number, (start, end) in enumerate(ranges):
        shift = 0
        for (here, after), (_, image_end) in zip(replaced, images, strict=True):
            if here < end and start < after:
                raise RequestError(
                    f"[{start}, {end}] covers the placeholder of an image, at [{here}, {after}]",
                    f"score_ranges[{number}]",
                )
            if after <= start:
                shift = image_end - after
        moved.append((start + shift, end + shift))
    return moved


def _replaced(sent: Sequence[int], expanded: Sequence[int], images: Sequence[Span]) -> list[Span]:
    """Return the spans of ``sent`` that the images took the place of, in order."""
    kept = len(expanded) - sum(end - start for start, end in images)
    share, rest = divmod(len(sent) - kept, len(images)) if images else (0, 0)
    found: list[Span] = []
    at = after = 0
    for start, end in images:
        here = at + start - after
        found.append((here, here + share))
        at, after = here + share, end
    text = zip([0, *(end for _, end in found)], [*(it for it, _ in found), len(sent)], strict=True)
    gaps = zip(
        [0, *(end for _, end in images)], [*(it for it, _ in images), len(expanded)], strict=True
    )
    if (
        rest
        or share < 0
        or len({tuple(sent[start:end]) for start, end in found}) > 1
        or any(
            list(sent[a:b]) != list(expanded[c:d])
            for (a, b), (c, d) in zip(text, gaps, strict=True)
        )
    ):
        raise RequestError(
            "vLLM changed more of the prompt than the placeholders of its images: which of its "
            "tokens are those that were sent cannot be told. Leave the images out",
            "multi_modal_data",
        )
    return found
