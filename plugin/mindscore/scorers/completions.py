"""What the servers with ``/completions`` share: generating, choices, usage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from msgspec import Struct

from mindhooks import Generated, ScorerError
from mindscore.scorers.wire import WireClient


class Choice(Struct):
    """What is said of one prompt; ``index`` says of which."""

    index: int


C = TypeVar("C", bound=Choice)


class _Details(Struct):
    cached_tokens: int | None = None


class Usage(Struct):
    """What a request took."""

    prompt_tokens: int | None = None
    prompt_tokens_details: _Details | None = None

    def computed(self, *, unless_said: int | None) -> int | None:
        """Tokens that ran through the model.

        ``unless_said`` is how many were cached where the server doesn't say; ``None``: not known.
        """
        details = self.prompt_tokens_details
        said = details.cached_tokens if details is not None else None
        cached = unless_said if said is None else said
        known = self.prompt_tokens is not None and cached is not None
        return max(0, (self.prompt_tokens or 0) - (cached or 0)) if known else None


class Tokens(Struct):
    """What ``/tokenize`` answers, wherever there is one."""

    tokens: list[int]


class Text(Struct):
    """The text of ids: ``prompt``, as vLLM and mindscore call it, or ``text``, as SGLang does."""

    prompt: str | None = None
    text: str | None = None


async def detokenize(client: WireClient, ids: Sequence[int], more: Mapping[str, Any]) -> str:
    """The text of ``ids``, special tokens included, by the server's ``/detokenize``.

    Raises:
        ScorerError: the server has no such path, or says something else.
    """
    body = {**more, "tokens": ids, "skip_special_tokens": False}
    answer = await client.post("/detokenize", body, Text)
    found = answer.prompt if answer.prompt is not None else answer.text
    if found is None:
        raise ScorerError(
            f"{client.base_url}/detokenize: prompt: is missing: set server.tokenizer to the "
            "model's tokenizer.json"
        )
    return found


class _Continuation(Struct):
    text: str
    token_ids: tuple[int, ...] | None = None


class _Completion(Struct):
    choices: list[_Continuation]


def in_order(where: str, choices: Sequence[C], count: int) -> list[C]:
    """The choices of ``count`` prompts by index.

    Raises:
        ScorerError: there is not one for each.
    """
    ordered = sorted(choices, key=lambda it: it.index)
    if (got := [choice.index for choice in ordered]) != list(range(count)):
        raise ScorerError(
            f"{where}: choices: asked for {count} prompts, got indexes {got[: count + 1]}; "
            "does server.scorer fit this server?"
        )
    return ordered


async def complete(
    client: WireClient,
    path: str,
    model: str,
    tokens: Sequence[int],
    *,
    max_tokens: int,
    stop: Sequence[int],
    more: Mapping[str, Any],
) -> Generated:
    """Greedy, from token ids; the answer's ids where the server returns them.

    ``more`` is what the request holds besides.

    Raises:
        ScorerError: the server does not generate.
    """
    body = {
        "model": model,
        "prompt": tokens,
        "max_tokens": max_tokens,
        "temperature": 0,
        "stop_token_ids": list(stop),
        "return_token_ids": True,
        **more,
    }
    answer = await client.post(path, body, _Completion)
    if not answer.choices:
        raise ScorerError(f"{client.base_url}{path}: choices: is empty; does the server generate?")
    choice = answer.choices[0]
    return Generated(choice.token_ids, choice.text)
