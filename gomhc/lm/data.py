"""Text for the language model: tokens to train on, and a fixed set of windows to evaluate on.

Note [Stateless batches]
    The batch of a step is drawn from a generator seeded with the run's seed and the step alone. So
    a run that is resumed, or spread over several processes, sees the same batches.
"""

import hashlib
import http.client
import io
import os
import urllib.request
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from gomhc.extras import load
from gomhc.files import replacing
from gomhc.lm import stories as process
from gomhc.lm.tokenizer import Tokenizer

__all__ = ["Corpus", "stories", "text", "tiny_shakespeare", "tiny_stories"]

SHAKESPEARE_URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
END = "<|endoftext|>"  # between the stories of TinyStories
HELD_OUT = 2**40  # seed of the stories to evaluate on; no run trains on it


@dataclass(frozen=True, eq=False)
class Corpus:
    """Tokens to train on, and windows to evaluate on.

    Attributes:
        name: what it is.
        tokenizer: what its tokens stand for; `Tokenizer("numbers", 100)` for those of one's own.
        train: (tokens,), int64.
        windows: (count, block + 1), int64; the last `block` tokens of each are predicted.
        cost: (count, block), what each predicted token costs a reader who knows the process that
            wrote it, in nats; None where nobody knows.

    Raises:
        ValueError: if shapes, dtypes or tokens are not such as above, or there are too few tokens
            for a window.
    """

    name: str
    tokenizer: Tokenizer
    train: Int[Tensor, " tokens"] = field(repr=False)
    windows: Int[Tensor, "count length"] = field(repr=False)
    cost: Float[Tensor, "count block"] | None = field(default=None, repr=False)

    @property
    def vocabulary(self) -> int:
        """Number of different tokens."""
        return self.tokenizer.size

    @property
    def block(self) -> int:
        """Tokens predicted in a window."""
        return self.windows.shape[1] - 1

    def __post_init__(self) -> None:
        """Check that training on it can work."""
        if self.train.ndim != 1 or self.windows.ndim != 2 or self.windows.shape[1] < 2:
            raise ValueError(
                "expected tokens (count,) to train on and windows (count, 2 or more), got shapes "
                f"{tuple(self.train.shape)} and {tuple(self.windows.shape)}"
            )
        _checked(len(self.train), self.block, len(self.windows), "to train on")
        for part in (self.train, self.windows):
            if part.dtype != torch.int64:
                raise ValueError(f"expected tokens in int64, got {part.dtype}")
            low, high = part.aminmax()
            if low < 0 or high >= self.vocabulary:
                raise ValueError(
                    f"expected tokens in [0, {self.vocabulary}), got {int(low)} to {int(high)}"
                )
        if self.cost is not None and self.cost.shape != self.windows[:, 1:].shape:
            raise ValueError(
                f"expected a cost of shape {tuple(self.windows[:, 1:].shape)}, got "
                f"{tuple(self.cost.shape)}"
            )

    @property
    def floor(self) -> float | None:
        """Mean cost of the windows, in nats a token: no model has less in expectation."""
        return None if self.cost is None else self.cost.mean().item()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the tokens, to train on and to evaluate on, and of what they stand for."""
        total = hashlib.sha256(self.tokenizer.state().encode())
        for part in (self.train, self.windows):
            total.update(f"{tuple(part.shape)}".encode() + part.numpy().tobytes())
        return total.hexdigest()

    def batch(self, step: int, size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """What is trained on in one step (Note [Stateless batches] in this module).

        Args:
            step: number of the step.
            size: windows in the batch.
            seed: of the run.

        Returns:
            Tokens and the tokens after them, both (size, block), int64.
        """
        source = np.random.default_rng([seed, step])
        starts = torch.from_numpy(source.integers(len(self.train) - self.block, size=size))
        rows = self.train[starts[:, None] + torch.arange(self.block + 1)]
        return rows[:, :-1], rows[:, 1:]


def _checked(count: int, block: int, windows: int, what: str) -> None:
    if block < 1 or windows < 1:
        raise ValueError(f"expected block and windows >= 1, got {block=}, {windows=}")
    if count < block + 1:
        raise ValueError(f"expected at least {block + 1} tokens {what}, got {count}")


def _apart(places: Int[np.ndarray, " all"], least: int) -> Int[np.ndarray, " some"]:
    """The first of some rising numbers, and each next one that is far enough from the last."""
    kept = [places[0]]
    for place in places[1:]:
        if place >= kept[-1] + least:
            kept.append(place)
    return np.array(kept)


def stories(block: int = 128, train: int = 1_000_000, windows: int = 64, seed: int = 0) -> Corpus:
    """Stories by the process of `gomhc.lm.stories`, whose floor is known.

    Every window to evaluate on begins with a story, so that its tokens have all of their context;
    they are the same for every seed.

    Args:
        block: tokens in a window.
        train: tokens to train on.
        windows: to evaluate on.
        seed: of the stories to train on.

    Raises:
        ValueError: if block or windows is not positive, train is too short for a window, or the
            seed is not in [0, 2⁴⁰).
    """
    _checked(train, block, windows, "to train on")
    if not 0 <= seed < HELD_OUT:
        raise ValueError(f"expected a seed in [0, 2**40), got {seed}")
    words = process.vocabulary()
    length, starts = 2 * windows * (block + 1), np.empty(0, np.int64)
    while len(starts) < windows:
        length *= 2
        held_out = process.sample(length, HELD_OUT)
        starts = _apart(np.flatnonzero(held_out.tokens == 0), block + 1)
        starts = starts[starts + block + 1 <= length][:windows]
    rows = starts[:, None] + np.arange(block + 1)
    return Corpus(
        "stories",
        Tokenizer("words", words),
        torch.from_numpy(process.sample(train, seed).tokens),
        torch.from_numpy(held_out.tokens[rows]),
        torch.from_numpy(-held_out.log_probability[rows[:, 1:]]),
    )


def text(
    path: str | os.PathLike[str],
    block: int = 128,
    level: Literal["characters", "bpe"] = "characters",
    vocabulary: int = 1024,
    windows: int = 64,
    held_out: float = 0.1,
) -> Corpus:
    """Any text file in UTF-8; its last part is to evaluate on.

    Args:
        path: of the file.
        block: tokens in a window.
        level: a token is a character, or a piece of byte-level BPE learned on the training part
            (kept in `cache()` under the hash of that part).
        vocabulary: number of BPE tokens; characters have their own.
        windows: to evaluate on, at most; evenly spread over the last part.
        held_out: share of the file to evaluate on.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is empty, not UTF-8, or too short for a window; if the level is neither,
            or held_out is not in (0, 1).
        ImportError: if BPE is asked for and `tokenizers` is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"expected a text file at {path}, found none")
    try:
        content = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"expected UTF-8 in {path}, got byte {error.object[error.start]:#04x} at position "
            f"{error.start}"
        ) from None
    return _split(path.name, content, block, level, vocabulary, windows, held_out)


def _split(
    name: str,
    content: str,
    block: int,
    level: str,
    vocabulary: int,
    windows: int,
    held_out: float,
) -> Corpus:
    if not content:
        raise ValueError(f"expected text in {name}, got none")
    if not 0 < held_out < 1:
        raise ValueError(f"expected held_out in (0, 1), got {held_out}")
    cut = round(len(content) * (1 - held_out))
    if level == "characters":
        tokenizer = Tokenizer("characters", sorted(set(content)))
    elif level == "bpe":
        if vocabulary <= 256:
            raise ValueError(f"expected vocabulary >= 257 for bytes and an end, got {vocabulary}")
        tokenizer = _bpe(content[:cut], vocabulary)
    else:
        raise ValueError(f"expected level as 'characters' or 'bpe', got {level!r}")
    train, rest = (
        torch.from_numpy(np.array(tokenizer.encode(part), np.int64))
        for part in (content[:cut], content[cut:])
    )
    _checked(len(train), block, windows, f"to train on in {name}")
    _checked(len(rest), block, windows, f"to evaluate on in {name}")
    count = min(windows, len(rest) // (block + 1))
    starts = torch.arange(count) * (len(rest) - block - 1) // max(count - 1, 1)
    rows = rest[starts[:, None] + torch.arange(block + 1)]
    return Corpus(name, tokenizer, train, rows)


def cache() -> Path:
    """Folder of downloads and trained tokenizers: $GOMHC_CACHE, or gomhc in the user's cache."""
    own = os.environ.get("GOMHC_CACHE")
    if own:  # the user may have no home, as in a container
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gomhc"


def _bpe(content: str, vocabulary: int) -> Tokenizer:
    """Byte-level BPE of a text, trained once."""
    tokenizers = load("tokenizers", "lm", "BPE")
    digest = hashlib.sha256(f"{vocabulary} {tokenizers.__version__} {content}".encode())
    path = cache() / f"bpe-{digest.hexdigest()[:32]}.json"
    if not path.exists():
        pieces = tokenizers.ByteLevelBPETokenizer()
        pieces.train_from_iterator(
            io.StringIO(content, newline="\n"),  # line by line, without a copy of all
            vocab_size=vocabulary,
            special_tokens=[END],
            show_progress=False,
        )
        with replacing(path) as draft:
            pieces.save(str(draft))
    return Tokenizer("bpe", path.read_text(encoding="utf-8"))


def tiny_shakespeare(path: str | os.PathLike[str] | None = None, **options: Any) -> Corpus:
    """The 1.1 million characters of Tiny Shakespeare, from a file or by download.

    Args:
        path: of a local copy; without one it is downloaded into `cache()`, once.
        options: of `text`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is another text, by its SHA-256; and as `text` does.
        ConnectionError: if it cannot be downloaded.

    Source: Karpathy, char-rnn.
    """
    if path is None:
        path = cache() / "tinyshakespeare.txt"
        if not path.exists():
            with replacing(path) as draft:
                _download(SHAKESPEARE_URL, draft)
                _verify(draft, SHAKESPEARE_SHA256, SHAKESPEARE_URL)
    path = Path(path)
    if path.is_file():
        _verify(path, SHAKESPEARE_SHA256, str(path))
    return text(path, **options)


def _download(url: str, path: Path) -> None:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            path.write_bytes(answer.read())
    except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
        raise ConnectionError(
            f"expected to download {url}, got: {error}. Without a network give the path of a copy."
        ) from error


def _verify(path: Path, sha256: str, source: str) -> None:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != sha256:
        raise ValueError(f"expected the SHA-256 {sha256} of {source}, got {digest}")


def tiny_stories(
    count: int = 20_000,
    block: int = 512,
    vocabulary: int = 8192,
    windows: int = 64,
    source: str = "roneneldan/TinyStories",
) -> Corpus:
    """The first stories of TinyStories, through the package `datasets`, in byte-level BPE.

    Args:
        count: number of stories.
        block: tokens in a window.
        vocabulary: number of BPE tokens.
        windows: to evaluate on.
        source: name on the Hugging Face hub, or a folder that holds a copy of the dataset.

    Raises:
        ImportError: if `datasets` is not installed.
        ConnectionError: if the dataset cannot be had.
        ValueError: as `text`.
    """
    datasets = load("datasets", "tinystories", "TinyStories")
    try:
        rows = datasets.load_dataset(source, split="train", streaming=True)
        content = "".join(f"{row['text'].strip()}\n{END}\n" for row in rows.take(count))
    except Exception as error:  # the hub's client has many kinds, of which few are OSErrors
        raise ConnectionError(
            f"expected to read the dataset {source}, got: {error}. Without a network give the "
            "folder of a copy."
        ) from error
    return _split("TinyStories", content, block, "bpe", vocabulary, windows, 0.1)
