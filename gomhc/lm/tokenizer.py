"""Text to tokens and back, in a form that is stored with a run."""

import functools
import json
import operator
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from gomhc.checks import check_count
from gomhc.extras import load

__all__ = ["Tokenizer"]

LINE = re.compile(r"(?<=\S\n)(?=\S)")
PART = 2**16  # characters that byte-level BPE encodes at a time: it takes 100 bytes for each


@dataclass(frozen=True)
class Tokenizer:
    """What the numbers of tokens stand for.

    Attributes:
        kind: "characters" or "words" (which stand between spaces), each a token, "bpe", or
            "numbers": tokens that stand for themselves, written with spaces between.
        content: the tokens in the order of their numbers; of BPE the JSON of the package
            tokenizers, of which what cuts texts, fills them up or adds special tokens is not
            applied; and of numbers how many there are.

    Raises:
        TypeError: if the content of "numbers" is no integer, or that of another kind no strings.
        ValueError: if there is no such kind, a token comes twice, a character is none or several, a
            word holds a space or nothing, or there is no number.
    """

    kind: Literal["characters", "words", "bpe", "numbers"]
    content: Sequence[str] | str | int = field(repr=False)

    def __post_init__(self) -> None:
        """Check the kind and the content."""
        if self.kind not in ("characters", "words", "bpe", "numbers"):
            raise ValueError(
                f"expected tokens as characters, words, bpe or numbers; got {self.kind!r}"
            )
        if self.kind in ("characters", "words"):
            content = self.content
            tokens = tuple(content) if isinstance(content, Iterable) else (content,)
            if not all(isinstance(token, str) for token in tokens):
                raise TypeError(f"expected {self.kind} as strings, got {content!r}")
            object.__setattr__(self, "content", tokens)
            if len(self._numbers) != self.size:
                raise ValueError(f"expected {self.kind} that differ, got one twice")
        if self.kind == "characters":
            for character in self._numbers:
                if len(character) != 1:
                    raise ValueError(f"expected characters one by one, got {character!r}")
        if self.kind == "words":
            for word in self._numbers:
                if word.split() != [word]:
                    raise ValueError(f"expected words without spaces, got {word!r}")
        if self.kind == "bpe" and not isinstance(self.content, str):
            raise TypeError(f"expected bpe as a string of JSON, got {self.content!r}")
        if self.kind == "numbers":
            count = check_count("number of tokens", self.content, least=1)
            object.__setattr__(self, "content", count)

    @property
    def size(self) -> int:
        """Number of tokens."""
        if self.kind == "bpe":
            return int(self._bpe.get_vocab_size())
        return self.content if isinstance(self.content, int) else len(self.content)

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        assert not isinstance(self.content, int)
        return {token: number for number, token in enumerate(self.content)}

    @functools.cached_property
    def _bpe(self) -> Any:
        package = load("tokenizers", "lm", "BPE")
        try:
            pieces = package.Tokenizer.from_str(self.content)
        except Exception as error:  # it raises no other
            raise ValueError(f"expected JSON of the package tokenizers, got {error}") from None
        pieces.no_truncation()
        pieces.no_padding()
        if _numbers_of(pieces, "a\na") != _numbers_of(pieces, "a\n") + _numbers_of(pieces, "a"):
            raise ValueError(
                "expected BPE that encodes the parts of a text as it does the whole, got one that "
                "puts something before each, as with add_prefix_space"
            )
        return pieces

    def encode(self, text: str) -> array:
        """Numbers of the tokens of a text.

        Args:
            text: any for BPE, else of known tokens alone.

        Returns:
            An array of 64-bit integers.

        Raises:
            ValueError: if a token is unknown, a text for BPE is no Unicode, or the content is no
                BPE that can encode a text in parts.
        """
        if self.kind == "bpe":
            numbers = array("q")
            for part in _parts(text):
                try:
                    numbers.extend(_numbers_of(self._bpe, part))
                except TypeError:  # as of bytes in a command line that were no UTF-8
                    raise ValueError("expected text in Unicode, got lone surrogates") from None
            return numbers
        tokens = text if self.kind == "characters" else text.split()
        try:
            if self.kind == "numbers":
                return array("q", map(self._known, map(int, tokens)))
            return array("q", map(self._numbers.__getitem__, tokens))
        except KeyError as error:
            raise ValueError(f"expected known {self.kind}, got {error.args[0]!r}") from None

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of some tokens.

        Args:
            tokens: numbers below `size`.

        Returns:
            Their text; bytes of BPE that are no UTF-8 become replacement characters.

        Raises:
            TypeError: if a token is no integer.
            ValueError: if there is no such token.
        """
        tokens = [self._known(token) for token in tokens]
        if self.kind == "bpe":
            return str(self._bpe.decode(tokens, skip_special_tokens=False))
        if isinstance(self.content, int):
            return " ".join(map(str, tokens))
        between = "" if self.kind == "characters" else " "
        return between.join(self.content[token] for token in tokens)

    def _known(self, token: int) -> int:
        if not 0 <= token < self.size:
            raise ValueError(f"expected tokens in [0, {self.size}), got {token}")
        return operator.index(token)

    def state(self) -> str:
        """It as JSON, from which `from_state` makes it again."""
        return json.dumps([self.kind, self.content], ensure_ascii=False)

    @classmethod
    def from_state(cls, state: str) -> "Tokenizer":
        """Make it of what `state` gave.

        Raises:
            ValueError: if it is something else.
        """
        try:
            kind, content = json.loads(state)
            return cls(kind, content)
        except (TypeError, ValueError) as error:
            raise ValueError(f"expected the state of a tokenizer, got {error}") from None


def _numbers_of(pieces: Any, text: str) -> list[int]:
    """Of byte-level BPE, without the special tokens that a model may want around its text."""
    return list(pieces.encode(text, add_special_tokens=False).ids)


def _parts(text: str) -> Iterator[str]:
    """Parts of a text between lines: no token spans a line's end with letters on both sides."""
    begin = 0
    while begin < len(text):
        place = LINE.search(text, begin + PART)
        end = place.start() if place else len(text)
        yield text[begin:end]
        begin = end
