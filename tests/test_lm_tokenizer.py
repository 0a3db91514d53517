"""Tokens: every text comes back, what is unknown is refused, and large texts are read in parts."""

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomhc.lm import tokenizer
from gomhc.lm.tokenizer import Tokenizer

SONG = "Ring a ring o' roses,\n  A pocket full of posies;\n\n\n\tA-tishoo! a-tishoo! é 🌹\n" * 40


@pytest.fixture(scope="module")
def bpe():
    tokenizers = pytest.importorskip("tokenizers")
    pieces = tokenizers.ByteLevelBPETokenizer()
    pieces.train_from_iterator([SONG], vocab_size=400, show_progress=False)
    return Tokenizer("bpe", pieces.to_str())


def makers():
    return [
        Tokenizer("characters", sorted(set(SONG))),
        Tokenizer("words", sorted(set(SONG.split()))),
        Tokenizer("numbers", 12),
    ]


@pytest.mark.parametrize("made", makers(), ids=lambda made: made.kind)
def test_it_comes_back(made):
    text = {"characters": SONG, "words": " ".join(SONG.split()), "numbers": "3 11 0"}[made.kind]
    numbers = made.encode(text)
    assert max(numbers) < made.size
    assert made.decode(numbers) == text
    again = Tokenizer.from_state(made.state())
    assert again == made
    assert again.encode(text) == numbers


def test_bpe_comes_back(bpe):
    numbers = bpe.encode(SONG)
    assert len(numbers) < len(SONG)
    assert bpe.decode(numbers) == SONG
    assert Tokenizer.from_state(bpe.state()).encode(SONG) == numbers


def changed(bpe, change):
    """The same pieces in JSON as it comes with models."""
    pieces = pytest.importorskip("tokenizers").Tokenizer.from_str(bpe.content)
    change(pieces)
    return Tokenizer("bpe", pieces.to_str())


def fills_up(pieces):
    pieces.enable_padding(length=1000)


def cuts(pieces):
    pieces.enable_truncation(10)


def adds_a_token(pieces):
    processors = pytest.importorskip("tokenizers.processors")
    template = processors.TemplateProcessing(single="! $A", special_tokens=[("!", 0)])
    pieces.post_processor = template


@pytest.mark.parametrize("change", [cuts, fills_up, adds_a_token])
def test_nothing_is_cut_off_or_added(bpe, change, monkeypatch):
    monkeypatch.setattr(tokenizer, "PART", 100)
    assert changed(bpe, change).encode(SONG) == bpe.encode(SONG)


def test_bpe_that_puts_a_space_before_every_part_is_refused(bpe):
    def put(pieces):
        byte_level = pytest.importorskip("tokenizers.pre_tokenizers").ByteLevel
        pieces.pre_tokenizer = byte_level(add_prefix_space=True)

    with pytest.raises(ValueError, match=r"expected BPE that .* add_prefix_space"):
        changed(bpe, put).encode(SONG)


def test_what_is_no_json_of_bpe_is_refused():
    pytest.importorskip("tokenizers")
    with pytest.raises(ValueError, match="expected JSON of the package tokenizers"):
        Tokenizer("bpe", "none").encode("a")


@given(st.text(alphabet="ab \n\t.", max_size=300), st.integers(1, 40))
def test_parts_have_the_tokens_of_the_whole(bpe, text, part):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer, "PART", part)
        assert "".join(tokenizer._parts(text)) == text
        assert list(bpe.encode(text)) == bpe._bpe.encode(text).ids


def test_a_large_text_takes_little_more_than_its_tokens(bpe, monkeypatch):
    """Python's part of it: an encoding of the whole would hold a string for every token."""
    text = SONG * 100
    assert len(list(tokenizer._parts(text))) > 3
    bpe.encode("a")
    tracemalloc.start()
    try:
        numbers = bpe.encode(text)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 3 * 8 * len(numbers) + 40 * tokenizer.PART


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tokenizer("letters", "abc"), "characters, words, bpe or numbers; got 'letters'"),
        (lambda: Tokenizer("words", ["a", "b", "a"]), "expected words that differ, got one twice"),
        (
            lambda: Tokenizer("characters", "abc").encode("abd"),
            "expected known characters, got 'd'",
        ),
        (lambda: Tokenizer("words", ["a"]).encode("a b"), "expected known words, got 'b'"),
        (lambda: Tokenizer("numbers", 3).encode("1 3"), r"expected tokens in \[0, 3\), got 3"),
        (lambda: Tokenizer("characters", "abc").decode([0, 3]), r"in \[0, 3\), got 3"),
        (lambda: Tokenizer("words", ["a"]).decode([-1]), r"in \[0, 1\), got -1"),
        (lambda: Tokenizer("numbers", -3), "expected number of tokens >= 1, got -3"),
        (lambda: Tokenizer("words", ["a b", "c"]), "expected words without spaces, got 'a b'"),
        (lambda: Tokenizer("characters", ["a", "bc"]), "expected characters one by one, got 'bc'"),
        (lambda: Tokenizer("characters", ["a", ""]), "expected characters one by one, got ''"),
        (lambda: Tokenizer("words", ["a", ""]), "expected words without spaces, got ''"),
        (lambda: Tokenizer.from_state("none"), "expected the state of a tokenizer"),
        (lambda: Tokenizer.from_state("[1]"), "expected the state of a tokenizer"),
        (lambda: Tokenizer.from_state('["characters", 5]'), "expected characters as strings"),
        (lambda: Tokenizer.from_state('["words", ["a", 5]]'), "expected words as strings"),
        (lambda: Tokenizer.from_state('["characters", null]'), "expected characters as strings"),
        (lambda: Tokenizer.from_state('["bpe", {}]'), "expected bpe as a string"),
        (lambda: Tokenizer.from_state('["numbers", "3"]'), "number of tokens as an integer"),
    ],
)
def test_what_is_wrong(make, message, unchecked):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("kind", "content"), [("characters", 5), ("words", [b"a"]), ("bpe", 5), ("numbers", "3")]
)
def test_content_of_another_type(kind, content, unchecked):
    with pytest.raises(TypeError, match="expected"):
        Tokenizer(kind, content)


def test_a_token_is_an_integer(unchecked):
    with pytest.raises(TypeError, match="float"):
        Tokenizer("characters", "abc").decode([1.5])


def test_bpe_of_what_is_no_unicode(bpe):
    with pytest.raises(ValueError, match="expected text in Unicode, got lone surrogates"):
        bpe.encode("a\udcff")


def test_a_number_of_numpy_is_a_number_of_tokens():
    tokenizer = Tokenizer("numbers", np.int64(100))
    assert tokenizer.size == 100
    assert json.loads(json.dumps(tokenizer.state())) == tokenizer.state()
