"""The tokenizer in a ``tokenizer.json``, and the chat template beside it, for servers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mindhooks import ScorerError, in_thread
from mindscore._util.errors import ConfigError
from mindscore._util.files import named_path
from mindscore.conversation.jinja import JinjaTemplate, template_in

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def tokenizer_of(setting: str) -> FileTokenizer | None:
    """Return the tokenizer in the file that ``server.tokenizer`` names, ``None`` for an empty one.

    Raises:
        ConfigError: it is not written as a path, see ``named_path``.
    """
    if not setting:
        return None
    file = named_path(setting)
    if file is None:
        raise ConfigError(
            f"server.tokenizer: {setting!r} is not written as a path: begin it with /, ~/ or, for "
            "a file in the current folder, ./"
        )
    return FileTokenizer(file)


class FileTokenizer:
    """The tokenizer in a file, or in the ``tokenizer.json`` of a folder; read on first use."""

    def __init__(self, file: Path | str) -> None:
        file = Path(file)
        self._file = file / "tokenizer.json" if file.is_dir() else file
        self._tokenizer: Tokenizer | None = None

    @cached_property
    def template(self) -> JinjaTemplate | None:
        """The chat template beside it, or ``None`` if there is none.

        Raises:
            ConfigError: its file cannot be read.
        """
        return template_in(self._file.parent)

    @property
    def bos(self) -> tuple[int, ...]:
        """The ids that it puts before every text, once it has been read."""
        if self._tokenizer is None:
            return ()
        return tuple(self._tokenizer.encode("", add_special_tokens=True).ids[:1])

    async def tokenize(self, text: str) -> list[int]:
        """Return the ids of ``text``; special tokens in it are recognised, none is added.

        Raises:
            ScorerError: the file cannot be read.
        """
        return await in_thread(self._encode, text)

    async def detokenize(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``, special tokens included.

        Raises:
            ScorerError: the file cannot be read.
        """
        return await in_thread(self._decode, ids)

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._loaded().encode(text, add_special_tokens=False).ids
        return ids

    def _decode(self, ids: Sequence[int]) -> str:
        text: str = self._loaded().decode(list(ids), skip_special_tokens=False)
        return text

    def _loaded(self) -> Tokenizer:
        if self._tokenizer is None:
            self._tokenizer = self._load()
        return self._tokenizer

    def _load(self) -> Tokenizer:
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_file(str(self._file))
        # The library raises Exception itself.
        except Exception as error:
            raise ScorerError(
                f"server.tokenizer: {self._file} is not a readable tokenizer.json: {error}"
            ) from error
        # A file's limits of length are for training: a message is neither cut nor padded.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer
