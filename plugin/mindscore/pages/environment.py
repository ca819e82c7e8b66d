"""Templates that escape all that they are given."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mindscore.errors import UsageError
from mindscore.pages.words import word_diff

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

# Nothing of these ends a script element, opens a comment in it, or ends a line of JavaScript.
_HARMLESS = {ord(it): f"\\u{ord(it):04x}" for it in "<>&\u2028\u2029"}


def environment(package: str) -> Environment:
    """The templates of ``package`` and those of this one; an unknown name in one is an error.

    A template has ``embed(id, data)`` and ``word_diff(before, after)``.

    Raises:
        UsageError: Jinja2 is not installed.
    """
    try:
        from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise UsageError(
            f"pages are made with Jinja2 ({error}); install it with: "
            "pip install 'mindscore[report]'"
        ) from error
    loaders = [PackageLoader(package), PackageLoader("mindscore.pages")]
    made = Environment(
        loader=ChoiceLoader(loaders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(embed=embed, word_diff=word_diff)
    return made


def embed(element_id: str, data: Any) -> Markup:
    """An element that holds ``data`` as JSON, which no text in it can end.

    Raises:
        ValueError: a number is not finite.
    """
    from markupsafe import Markup

    # Lone surrogates, which UTF-8 has not, are replaced where the page is encoded.
    written = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    template = Markup('<script type="application/json" id="{}">{}</script>')
    return template.format(element_id, Markup(written.translate(_HARMLESS)))  # noqa: S704
