"""Corpora: what is in them, and every way in which a text can be no text."""

import hashlib
import json
import urllib.request

import pytest
import torch

from gomhc.lm import data
from gomhc.lm.stories import log_probabilities, vocabulary
from gomhc.lm.tokenizer import Tokenizer

SONG = "row, row, row your boat, gently down the stream — merrily, life is but a dream.\n" * 60


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GOMHC_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def song(tmp_path):
    path = tmp_path / "song.txt"
    path.write_text(SONG, encoding="utf-8")
    return path


def test_a_cache_of_one_s_own_needs_no_home(tmp_path, monkeypatch):
    def none():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(data.Path, "home", none)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert data.cache() == tmp_path / "cache"
    monkeypatch.delenv("GOMHC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert data.cache() == tmp_path / "gomhc"


def test_the_floor_of_the_stories_is_what_their_words_cost():
    corpus = data.stories(block=64, train=5000, windows=8)
    words = vocabulary()
    for window, cost in zip(corpus.windows, corpus.cost, strict=True):
        exact = -log_probabilities([words[token] for token in window])
        assert exact[0] == 0
        torch.testing.assert_close(cost, torch.from_numpy(exact[1:]))
    assert corpus.floor == pytest.approx(corpus.cost.mean().item())


def test_windows_begin_with_a_story_and_do_not_overlap():
    corpus = data.stories(block=100, train=5000, windows=40)
    assert corpus.windows.shape == (40, 101)
    assert (corpus.windows[:, 0] == 0).all()
    assert len(corpus.windows.unique(dim=0)) == 40


def test_the_windows_are_the_same_for_every_seed():
    one, other = (data.stories(block=32, train=1000, windows=4, seed=k) for k in (0, 1))
    assert torch.equal(one.windows, other.windows)
    assert not torch.equal(one.train, other.train)


def test_batches_depend_on_seed_and_step_alone():
    corpus = data.stories(block=32, train=1000, windows=4)
    x, y = corpus.batch(7, 5, seed=1)
    assert x.shape == y.shape == (5, 32)
    assert torch.equal(x[:, 1:], y[:, :-1])
    assert all(torch.equal(a, b) for a, b in zip((x, y), corpus.batch(7, 5, seed=1), strict=True))
    assert not torch.equal(x, corpus.batch(8, 5, seed=1)[0])
    assert not torch.equal(x, corpus.batch(7, 5, seed=2)[0])


@pytest.mark.parametrize("level", ["characters", "bpe"])
def test_a_file_comes_back_whole(song, level):
    corpus = data.text(song, block=16, level=level, vocabulary=300)
    train = corpus.tokenizer.decode(corpus.train.tolist())
    assert SONG.startswith(train)
    assert len(train) == round(0.9 * len(SONG))
    assert corpus.tokenizer.decode(corpus.windows[-1].tolist()) in SONG
    assert corpus.floor is None


def test_a_text_encodes_what_it_decodes(song):
    for level in ("characters", "bpe"):
        corpus = data.text(song, block=16, level=level, vocabulary=300)
        assert corpus.tokenizer.decode(corpus.tokenizer.encode(SONG)) == SONG
    assert data.text(song, block=16).vocabulary == len(set(SONG))


def test_the_digest_knows_what_tokens_stand_for(song):
    """The same numbers of other letters are another corpus."""
    before = data.text(song, block=16)
    letter = sorted(set(SONG))[-1]
    song.write_text(SONG.replace(letter, chr(ord(letter) + 1000)))
    after = data.text(song, block=16)
    assert torch.equal(before.train, after.train)
    assert before.digest != after.digest


def test_bpe_is_trained_once(song, monkeypatch):
    import tokenizers

    first = data.text(song, block=8, level="bpe", vocabulary=300)
    monkeypatch.setattr(tokenizers, "ByteLevelBPETokenizer", None)
    again = data.text(song, block=8, level="bpe", vocabulary=300)
    assert torch.equal(first.train, again.train)
    with pytest.raises(TypeError):  # another vocabulary is another tokenizer
        data.text(song, block=8, level="bpe", vocabulary=301)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected text in song.txt, got none"),
        (b"ab\xff" * 100, "expected UTF-8 .* got byte 0xff at position 2"),
        (b"short", "expected at least 17 tokens to train on in song.txt, got 4"),
        (b"a little longer than short", "expected at least 17 tokens to evaluate on"),
    ],
)
def test_files_that_are_no_text(song, content, message):
    song.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        data.text(song, block=16)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected a text file at .*none.txt"):
        data.text(tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": "words"}, "'characters' or 'bpe', got 'words'"),
        ({"held_out": 1.0}, "held_out in"),
        ({"windows": 0}, "block and windows >= 1"),
    ],
)
def test_bad_options(song, options, message, unchecked):
    with pytest.raises(ValueError, match=message):
        data.text(song, block=16, **options)


def test_bad_options_of_stories():
    with pytest.raises(ValueError, match="at least 129 tokens to train on, got 100"):
        data.stories(train=100)
    with pytest.raises(ValueError, match="seed in"):
        data.stories(seed=-1)


# Tiny Shakespeare


@pytest.fixture
def shakespeare(song, monkeypatch):
    """The song stands in for the real text, whose hash is checked in the same way."""
    monkeypatch.setattr(data, "SHAKESPEARE_SHA256", hashlib.sha256(song.read_bytes()).hexdigest())
    monkeypatch.setattr(data, "SHAKESPEARE_URL", song.as_uri())
    return song


def test_shakespeare_from_a_copy_and_by_download(shakespeare):
    copy = data.tiny_shakespeare(shakespeare, block=16)
    downloaded = data.tiny_shakespeare(block=16)
    assert torch.equal(copy.train, downloaded.train)
    shakespeare.unlink()
    assert torch.equal(data.tiny_shakespeare(block=16).train, copy.train)  # from the cache


def test_a_wrong_text_is_refused_and_not_kept(shakespeare):
    shakespeare.write_text("another text")
    with pytest.raises(ValueError, match="expected the SHA-256"):
        data.tiny_shakespeare(shakespeare)
    with pytest.raises(ValueError, match="expected the SHA-256"):
        data.tiny_shakespeare()
    assert list(data.cache().iterdir()) == []


def test_without_a_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no route")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(ConnectionError, match="no route. Without a network give the path"):
        data.tiny_shakespeare()
    assert list(data.cache().iterdir()) == []


def test_tiny_stories_from_a_copy(tmp_path):
    folder = tmp_path / "TinyStories"
    folder.mkdir()
    told = [f"Once there was a duck with {k} eggs.\nShe sat on them." for k in range(200)]
    lines = [json.dumps({"text": f"  {story}\n"}) for story in told]
    (folder / "train.jsonl").write_text("\n".join(lines))
    corpus = data.tiny_stories(150, block=16, vocabulary=300, windows=4, source=str(folder))
    assert corpus.vocabulary <= 300
    text = corpus.tokenizer.decode(corpus.train.tolist())
    assert text.startswith(f"{told[0]}\n<|endoftext|>\n{told[1]}")
    assert told[149].split("\n")[0] not in text  # in the last tenth, to evaluate on
    assert f"{told[100]}\n<|endoftext|>" in text


def test_tiny_stories_without_a_network(monkeypatch):
    import datasets

    def refuse(*args, **kwargs):
        raise ConnectionError("no hub")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(ConnectionError, match="no hub. Without a network give the folder"):
        data.tiny_stories()


def words(**changes):
    parts = {
        "name": "mine",
        "tokenizer": Tokenizer("numbers", 5),
        "train": torch.arange(20) % 5,
        "windows": torch.zeros(2, 9, dtype=torch.int64),
    }
    return data.Corpus(**(parts | changes))


def test_a_corpus_of_ones_own():
    assert words().block == 8
    assert words().floor is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": torch.arange(8) % 5}, "at least 9 tokens to train on, got 8"),
        ({"train": torch.arange(20)}, r"tokens in \[0, 5\), got 0 to 19"),
        ({"train": torch.zeros(20, dtype=torch.int32)}, "tokens in int64, got torch.int32"),
        ({"train": torch.zeros(20, 2, dtype=torch.int64)}, r"got shapes \(20, 2\)"),
        ({"windows": torch.zeros(9, dtype=torch.int64)}, "got shapes"),
        ({"windows": torch.zeros(0, 9, dtype=torch.int64)}, "block and windows >= 1"),
        ({"windows": torch.zeros(2, 1, dtype=torch.int64)}, "got shapes"),
        ({"cost": torch.zeros(2, 9)}, r"cost of shape \(2, 8\), got \(2, 9\)"),
    ],
)
def test_a_corpus_that_cannot_be_trained_on(changes, message, unchecked):
    with pytest.raises(ValueError, match=message):
        words(**changes)
