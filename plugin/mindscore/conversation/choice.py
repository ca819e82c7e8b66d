"""The choice of a chat template for a conversation and a scorer, and what may not fit in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mindhooks import Context, Scorer, ScorerCapabilities, ScorerError
from mindscore._util.text import count_of
from mindscore.config.settings import parse_settings
from mindscore.conversation.blocks import NAMED_IMAGES
from mindscore.conversation.conversation import Transcript
from mindscore.conversation.own_template import OwnTemplate
from mindscore.conversation.rendering import Tokenize
from mindscore.conversation.template import ChatML, NoTemplateError, RenderChat, Template

MARKER = "<|im_start|>"
"""The token that begins a message of ChatML."""


async def template_for(
    transcript: Transcript, scorer: Scorer, tables: Mapping[str, Any], tokenize: Tokenize
) -> tuple[Template, list[str]]:
    """Return the template that ``server.chat_template`` asks for, with a remark if it may not fit.

    It is the model's own, if the scorer knows that, else ChatML. A transcript that has all
    token ids needs none.

    Raises:
        ScorerError: the tokenizer failed.
    """
    if all(it.token_ids is not None for it in transcript.messages):
        return ChatML(), []
    # First: some scorers know what they can only once they have spoken to their server.
    marker = await tokenize(MARKER)
    render = ScorerCapabilities.of(scorer).render_chat
    remarks = []
    if render is not None and parse_settings(tables).server.chat_template == "auto":
        unknown = await _no_template(render)
        if unknown is None:
            return OwnTemplate(render), []
        remarks.append(f"the messages are printed as ChatML: {unknown}")
    if len(marker) != 1:
        remarks.append(
            f"the messages are printed as ChatML, but {MARKER} is no token of {scorer.model}: the "
            "scores are of a context that the model was not trained on"
        )
    return ChatML(), remarks


async def _no_template(render: RenderChat) -> NoTemplateError | None:
    """Return the error that there is no template to render by, or ``None`` if there is one."""
    try:
        await render([{"role": "user", "content": "Hello"}], True)
    except NoTemplateError as error:
        return error
    # It refuses this message: whether it refuses the conversation, that will show.
    except Exception:
        return None
    return None


def images_for(transcript: Transcript, scorer: Scorer, tables: Mapping[str, Any]) -> Transcript:
    """Return the transcript as ``scorer`` takes it: without images, if it takes none.

    Raises:
        ScorerError: ``server.require_images`` is set, and it takes none, or the file has not all.
    """
    count = sum(len(it.images) for it in transcript.messages)
    settings = parse_settings(tables).server
    if settings.require_images and any(NAMED_IMAGES in it for it in transcript.remarks):
        raise ScorerError(
            f"the conversation has {NAMED_IMAGES}: none of these can be given to a scorer; score "
            "it without --require-images and server.require_images"
        )
    if not count or ScorerCapabilities.of(scorer).takes_images:
        return transcript
    if settings.require_images:
        raise ScorerError(
            f"the conversation holds {count_of(count, 'image')}, and the scorer {settings.scorer} "
            'takes none: use a server that does, with server.scorer = "score", or let them be left '
            "out, without --require-images and server.require_images"
        )
    return transcript.without_images()


def begins_unlike(context: Context, scorer: Scorer) -> list[str]:
    """Return a line if the model expects a first token that the conversation's prompts lack."""
    bos = ScorerCapabilities.of(scorer).bos
    nodes = (*context.system, *context.identity, *context.conversation)
    first = next((it.token_ids for it in nodes if it.token_ids), ())
    if not bos or not first or context.prompts is not None or first[: len(bos)] == bos:
        return []
    remark = (
        f"prompts do not begin with the token {bos[0]} (BOS), which {scorer.model} expects there: "
        "its chat template prints none"
    )
    return [remark]
