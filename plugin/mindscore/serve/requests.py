"""The bodies of requests to the server, and what they must be."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from mindscore.config.settings import TokenId
from mindscore.http.refusals import RefusedError

MAX_TOKENS = 65_536
"""Tokens that are generated for one prompt at most."""

FIRST_PRIORITY = -(2**31)
"""The priority that comes before every other."""

MAX_TEXT_BYTES = 2**20
"""Size of the texts of a request, in UTF-8: tokenising one takes a second and 200 MB for each."""

MAX_DECODED_TOKENS = 2**20
"""Tokens of a request for their text, or of all its prompts: decoding so many takes a second."""

MAX_RANGE_SHARE = 8
"""How many times as long as the prompt all its ranges together may be."""

DEFAULT_TOKENS = 16
MAX_PROMPTS = 1024

Priority = Annotated[int, Meta(ge=FIRST_PRIORITY, le=2**31 - 1)]
LogprobCount = Annotated[int, Meta(ge=0, le=1)]
"""Alternatives of each token: only its own logprob is known."""


class ScoreRequest(Struct):
    """``POST /v1/score``."""

    prompt: list[TokenId]
    score_ranges: list[tuple[int, int]]
    model: str | None = None
    priority: Priority | None = None
    multi_modal_data: Any = None

    def check(self) -> None:
        """Refuse images, and ranges that are too many, empty, out of bounds or at the first token.

        Raises:
            RefusedError: names the field.
        """
        _refuse_images(self.multi_modal_data)
        length = len(self.prompt)
        for number, (start, end) in enumerate(self.score_ranges):
            if not 1 <= start < end <= length:
                raise RefusedError(
                    400,
                    f"[{start}, {end}] is not a range within [1, {length}], the prompt's tokens "
                    "after the first",
                    param=f"score_ranges[{number}]",
                )
        asked = sum(end - start for start, end in self.score_ranges)
        if asked > MAX_RANGE_SHARE * length:
            raise RefusedError(
                400,
                f"the ranges are {asked} tokens long together, over {MAX_RANGE_SHARE} times the "
                f"prompt's {length}: ask for each range once, or send several requests",
                param="score_ranges",
            )


class CompletionRequest(Struct):
    """``POST /v1/completions``."""

    prompt: str | list[str | TokenId | list[TokenId]]
    model: str | None = None
    max_tokens: Annotated[int, Meta(ge=0, le=MAX_TOKENS)] | None = None
    temperature: float | None = None
    echo: bool | None = None
    logprobs: LogprobCount | None = None
    prompt_logprobs: LogprobCount | None = None
    stop_token_ids: list[TokenId] | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    priority: Priority | None = None
    # These would change the answer, and are not supported.
    n: int | None = None
    best_of: int | None = None
    stream: bool | None = None
    stop: str | list[str] | None = None
    suffix: str | None = None
    multi_modal_data: Any = None

    def check(self) -> None:
        """Refuse options that this server does not support, rather than ignore them."""
        _refuse_images(self.multi_modal_data)
        if self.temperature:
            raise RefusedError(400, "only greedy: expected 0 or none", param="temperature")
        if self.max_tokens == 0 and not self.echo:
            raise RefusedError(
                400, "max_tokens must be at least 1, got 0 (without echo)", param="max_tokens"
            )
        for name in ("n", "best_of"):
            if getattr(self, name) not in (None, 1):
                raise RefusedError(400, "only greedy: expected 1 or none", param=name)
        for name in ("stream", "stop", "suffix"):
            if getattr(self, name):
                raise RefusedError(400, "this server does not support that", param=name)

    def prompts(self) -> list[str | list[int]]:
        """Return the prompts, all texts or all token ids, none empty."""
        given: Any = self.prompt
        if isinstance(given, str) or (given and all(isinstance(it, int) for it in given)):
            given = [given]
        kinds = {type(it) for it in given}
        if len(kinds) != 1 or not all(given):
            raise RefusedError(
                400,
                "expected one or several prompts, texts or token ids, not empty",
                param="prompt",
            )
        if len(given) > MAX_PROMPTS:
            raise RefusedError(400, f"at most {MAX_PROMPTS} prompts", param="prompt")
        count = sum(len(it) for it in given if not isinstance(it, str))
        if count > MAX_DECODED_TOKENS:
            raise RefusedError(
                413,
                f"{count} tokens, over {MAX_DECODED_TOKENS}: send them in parts",
                param="prompt",
            )
        prompts: list[str | list[int]] = given
        return prompts

    @property
    def most_tokens(self) -> int:
        """The limit of tokens to generate."""
        return DEFAULT_TOKENS if self.max_tokens is None else self.max_tokens


def _refuse_images(data: object) -> None:
    if data:
        why = 'this server takes no images: server.scorer = "auto" leaves them out'
        raise RefusedError(400, why, param="multi_modal_data")


def require_short(*texts: str) -> None:
    """Refuse texts that are too large to tokenise.

    Raises:
        RefusedError: they are.
    """
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    if size > MAX_TEXT_BYTES:
        raise RefusedError(
            413,
            f"the text is {size} bytes, over {MAX_TEXT_BYTES}: send it in parts",
            param="prompt",
        )


class TokenizeRequest(Struct):
    """``POST /tokenize``."""

    prompt: str
    model: str | None = None


class DetokenizeRequest(Struct):
    """``POST /detokenize``."""

    tokens: list[TokenId]
    model: str | None = None

    def check(self) -> None:
        """Refuse more tokens than are decoded at once."""
        if len(self.tokens) > MAX_DECODED_TOKENS:
            many = f"{len(self.tokens)} tokens, over {MAX_DECODED_TOKENS}: send them in parts"
            raise RefusedError(413, many, param="tokens")
