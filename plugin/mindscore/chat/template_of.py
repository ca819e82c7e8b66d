"""The template that ``server.chat_template`` names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mindhooks import Scorer, ScorerError
from mindscore.chat.template import ChatML, OwnTemplate, Template
from mindscore.config import parse_settings


def template_of(scorer: Scorer, tables: Mapping[str, Any]) -> Template:
    """ChatML, or with ``"auto"`` the model's own template.

    Raises:
        ScorerError: the scorer cannot render the model's template.
    """
    if parse_settings(tables).server.chat_template == "chatml":
        return ChatML()
    render = getattr(scorer, "render_chat", None)
    if render is None:
        raise ScorerError(
            'server.chat_template = "auto" needs the model\'s own template, which this scorer does '
            'not have: use the local scorer, "chatml", or token_ids in the transcript'
        )
    return OwnTemplate(render)
