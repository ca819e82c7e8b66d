"""Chat templates in Jinja, rendered as transformers and vLLM render them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from mindhooks import ScorerError
from mindscore._util.errors import ConfigError

if TYPE_CHECKING:
    from jinja2 import Template, nodes

Templates = str | Mapping[str, str]
"""A template's source, or several by name: ``default``, and ``tool_use`` where there are tools."""


class JinjaTemplate:
    """A model's chat template; ``tokens`` are the texts of its special tokens, by name."""

    def __init__(self, source: Templates, tokens: Mapping[str, str]) -> None:
        self._sources = {"default": source} if isinstance(source, str) else dict(source)
        self._tokens = dict(tokens)
        self._compiled: dict[str, tuple[Template, bool]] = {}
        # One date for all prompts of a run, also over midnight.
        self._now = datetime.now()

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        """Return the text of ``messages``.

        Raises:
            ScorerError: the template is not valid Jinja, or refuses the messages.
        """
        import jinja2

        try:
            template, takes_parts = self._template(bool(tools))
            return template.render(
                **self._tokens,
                messages=[_with_parts(it) for it in messages] if takes_parts else list(messages),
                add_generation_prompt=add_generation_prompt,
                tools=[_as_served(it) for it in tools] or None,
                documents=None,
            )
        except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise ScorerError(f"the chat template: {error}") from error

    def _template(self, has_tools: bool) -> tuple[Template, bool]:
        name = "tool_use" if has_tools and "tool_use" in self._sources else "default"
        if name not in self._compiled:
            if name not in self._sources:
                raise ScorerError("the model has several chat templates, and none is the default")
            source = self._sources[name]
            self._compiled[name] = (self._compile(source), _takes_parts(source))
        return self._compiled[name]

    def _compile(self, source: str) -> Template:
        environment = _environment()
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = self._now.strftime
        environment.filters["tojson"] = _to_json
        compiled: Template = environment.from_string(source)
        return compiled


def _environment() -> Any:
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """The tag that marks what the model produces, which changes nothing in the text."""

        tags = {"generation"}  # noqa: RUF012 - as Jinja wants it

        def parse(self, parser: Any) -> list[nodes.Node]:
            next(parser.stream)
            ends = ("name:endgeneration",)
            body: list[nodes.Node] = parser.parse_statements(ends, drop_needle=True)
            return body

    return ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )


def _refuse(message: str) -> NoReturn:
    from jinja2 import TemplateError

    raise TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _takes_parts(source: str) -> bool:
    """Say whether the template loops over the parts of a message's content.

    vLLM gives such a template parts, and any other one text.
    """
    from jinja2 import nodes

    tree = _environment().parse(source)
    names = {"content"}
    for it in tree.find_all(nodes.Assign):
        if isinstance(it.target, nodes.Name) and _is_content(it.node, names):
            names.add(it.target.name)
    return any(_is_content(loop.iter, names) for loop in tree.find_all(nodes.For))


def _is_content(node: nodes.Node, names: set[str]) -> bool:
    """Say whether ``node`` is ``message.content``, or a variable of ``names`` that holds it."""
    from jinja2 import nodes

    if isinstance(node, nodes.Filter | nodes.Test) and node.node is not None:
        return _is_content(node.node, names)
    if isinstance(node, nodes.Name):
        return node.name in names
    if isinstance(node, nodes.Getattr):
        return node.attr == "content"
    return (
        isinstance(node, nodes.Getitem)
        and isinstance(node.arg, nodes.Const)
        and node.arg.value == "content"
    )


def _with_parts(message: Mapping[str, Any]) -> Mapping[str, Any]:
    text = message["content"]
    if message["role"] == "tool" or not isinstance(text, str):
        return message
    return {**message, "content": [{"type": "text", "text": text}] if text else []}


def _as_served(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the definition of a tool as vLLM gives it to templates: what it lacks is null."""
    function = tool.get("function")
    if not isinstance(function, Mapping):
        return tool
    usual = {name: function.get(name) for name in ("name", "description", "parameters")}
    return {**tool, "function": {**usual, **function}}


SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token")


def template_in(folder: Path) -> JinjaTemplate | None:
    """Return the template in a tokenizer's ``folder``, or ``None`` if it has none.

    It is ``chat_template.jinja``, else of ``chat_template.json`` or ``tokenizer_config.json``.

    Raises:
        ConfigError: a file cannot be read.
    """
    settings = {**_json_file(folder / "special_tokens_map.json")}
    settings |= _json_file(folder / "tokenizer_config.json")
    tokens = {name: text for name in SPECIAL if (text := _token(settings.get(name))) is not None}
    alone = folder / "chat_template.jinja"
    if alone.is_file():
        return JinjaTemplate(read_template(alone), tokens)
    given = _json_file(folder / "chat_template.json").get("chat_template")
    given = given or settings.get("chat_template")
    if isinstance(given, list):
        pairs = [it for it in given if isinstance(it, dict)]
        given = {str(it.get("name")): str(it.get("template")) for it in pairs}
    return JinjaTemplate(given, tokens) if given else None


def read_template(file: Path) -> str:
    """Return the text of a template's file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"the chat template {file}: cannot be read: {error}") from None


def _token(given: Any) -> str | None:
    text = given.get("content") if isinstance(given, dict) else given
    return text if isinstance(text, str) else None


def _json_file(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"the tokenizer's file {file}: cannot be read: {error}") from None
    return found if isinstance(found, dict) else {}
