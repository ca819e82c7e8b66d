"""The wire of ``/v1/score``: the request as it is checked, and the answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

Span = tuple[int, int]
"""Positions of a prompt, half-open."""

MAX_RANGE_SHARE = 8
"""How many times as long as the prompt all its ranges together may be."""

ROUNDING = 1e-3
"""Nats by which a log-probability may exceed 0."""

TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class RequestError(Exception):
    """A request that cannot be answered, and the field that is at fault."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class RowsError(Exception):
    """Scores that vLLM gave and that cannot be right."""


class Media(Struct, forbid_unknown_fields=True):
    """Images as ``data:`` URLs, in the order of their placeholders."""

    image: list[str]


class RangesRequest(Struct):
    """``POST /v1/score``."""

    prompt: Annotated[list[TokenId], Meta(min_length=1)]
    score_ranges: list[Span]
    model: str | None = None
    logprobs: Annotated[int, Meta(ge=0, le=1)] | None = None
    priority: Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)] | None = None
    multi_modal_data: Media | None = None

    @property
    def images(self) -> list[str]:
        """The images, as ``data:`` URLs."""
        return self.multi_modal_data.image if self.multi_modal_data else []

    def check(self) -> None:
        """Refuse ranges out of bounds, empty, at the first token or too many, and links to images.

        Raises:
            RequestError: names the field.
        """
        length = len(self.prompt)
        for number, (start, end) in enumerate(self.score_ranges):
            if not 1 <= start < end <= length:
                raise RequestError(
                    f"[{start}, {end}] is not a range within [1, {length}], the prompt's tokens "
                    "after the first",
                    f"score_ranges[{number}]",
                )
        asked = sum(end - start for start, end in self.score_ranges)
        if asked > MAX_RANGE_SHARE * length:
            raise RequestError(
                f"the ranges are {asked} tokens long together, over {MAX_RANGE_SHARE} times the "
                f"prompt's {length}: ask for each range once, or send several requests",
                "score_ranges",
            )
        for number, image in enumerate(self.images):
            if not image.startswith("data:"):
                raise RequestError(
                    "not a data: URL; send the image itself, nothing is fetched",
                    f"multi_modal_data.image[{number}]",
                )


def read_request(body: bytes) -> RangesRequest:
    """Return the checked request in ``body``.

    Raises:
        RequestError: names the field where one is at fault.
    """
    try:
        request = msgspec.json.decode(body, type=RangesRequest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        message, _, where = str(error).partition(" - at `$.")
        raise RequestError(message, where.rstrip("`") or None) from None
    request.check()
    return request


def write_answer(ranges: Sequence[Sequence[float]], prompt_tokens: int, cached: int) -> bytes:
    """Return the body of the answer; ``ranges`` holds the log-probabilities, in nats."""
    answer: dict[str, Any] = {
        "scores": [
            {"total_logprob": math.fsum(values), "token_logprobs": values} for values in ranges
        ],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": 0,
            "total_tokens": prompt_tokens,
            "prompt_tokens_details": {"cached_tokens": cached},
        },
    }
    return msgspec.json.encode(answer)


def error_body(message: str, type_: str, code: int, param: str | None = None) -> dict[str, Any]:
    """Return an error in the form of vLLM's."""
    return {"error": {"message": message, "type": type_, "param": param, "code": code}}
