"""Checkpoints of a run, of which a whole one is there whenever it is killed.

Note [Resuming]
    Everything a step needs is a function of the configuration and the step's number: its batch, its
    learning rate, its dropout. So the weights, Adam's moments and the number of steps are the whole
    state. The tensors are written to a file of their own first and `state.json`, which names it,
    last, both by renaming; a run that is killed in between goes on from the older pair.

Note [One run, one folder]
    Two runs in one folder would overwrite each other, so a run locks its folder until it ends, and
    the system unlocks it if it is killed. On Windows, and on file systems without locks, nothing
    keeps a second run out: the later checkpoint counts. For that case a run removes the tensors
    that its own replace and no others; what killed runs left is removed under the lock alone.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gomhc.extras import load as load_package
from gomhc.files import holding, replacing
from gomhc.lm.data import Corpus
from gomhc.lm.model import GPT, GPTConfig
from gomhc.lm.tokenizer import Tokenizer
from gomhc.lm.train.config import Progress, TrainConfig

__all__ = ["load", "load_tokenizer"]

STATE = "state.json"
LOCK = ".lock"
MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # of a weight, in Adam's state


def load(folder: str | os.PathLike[str], tokenizer: Tokenizer | None = None) -> GPT:
    """The model of a run, as its last checkpoint has it.

    Args:
        folder: the `out` of `train`.
        tokenizer: of the text that it is wanted for; not asked for if None.

    Returns:
        The model, on the CPU.

    Raises:
        FileNotFoundError: if there is no run in the folder.
        OSError: if it cannot be read.
        ValueError: if it is damaged, or its tokens stand for something else.
        ImportError: if safetensors is not installed.
    """
    folder = _of_a_run(folder)
    state, _, tensors = _read(folder, "cpu")
    if tokenizer is not None and tokenizer.state() != state["tokenizer"]:
        raise ValueError(
            f"expected the tokenizer of the run in {folder}, got another: its text has changed, or "
            "is another; load_tokenizer gives the one of the run"
        )
    with _whole(folder):
        sizes = dict(state["config"]["model"])
        if sizes["factors"] is not None:
            sizes["factors"] = tuple(sizes["factors"])
        model = GPT(GPTConfig(**sizes))
        _check(model, tensors)
    _fill(model, tensors)
    return model


def load_tokenizer(folder: str | os.PathLike[str]) -> Tokenizer:
    """What the tokens of a run stand for.

    Args:
        folder: the `out` of `train`.

    Returns:
        The tokenizer of the text that it was trained on.

    Raises:
        FileNotFoundError: if there is no run in the folder.
        OSError: if it cannot be read.
        ValueError: if it is damaged.
        ImportError: if safetensors is not installed.
    """
    folder = _of_a_run(folder)
    state, _, _ = _read(folder, "cpu")
    with _whole(folder):
        return Tokenizer.from_state(state["tokenizer"])


def stored_state(folder: Path) -> Any:
    """What a folder's state file holds, unchecked: configuration and progress, but no tensor."""
    return json.loads((folder / STATE).read_text(encoding="utf-8"))


def warmup_of(folder: Path) -> int | None:
    """The warm-up of the run in a folder; None if there is none that can be read."""
    try:
        return int(stored_state(folder)["config"]["warmup"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _tensors_of(folder: Path) -> str | None:
    """Name of the file of tensors that counts; None if there is no state that can be read."""
    try:
        return str(stored_state(folder)["tensors"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _of_a_run(folder: str | os.PathLike[str]) -> Path:
    folder = Path(folder)
    if not (folder / STATE).is_file():
        raise FileNotFoundError(f"expected a run in {folder}, found no {STATE}")
    return folder


@contextmanager
def reserved(folder: Path) -> Iterator[None]:
    """A folder for one run (Note [One run, one folder]), in which the first checkpoint will work.

    Args:
        folder: made if it is not there; cleaned of what killed runs left.

    Raises:
        ImportError: if safetensors is not installed.
        ValueError: if it cannot be written to, or another run does.
    """
    load_package("safetensors.torch", "lm", "a checkpoint")
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
            alone = stack.enter_context(holding(folder / LOCK))
        except BlockingIOError as error:
            raise ValueError(
                f"expected a folder that no other run is writing to, got {folder}"
            ) from error
        except OSError as error:
            raise ValueError(f"expected a folder to write to, got {folder}: {error}") from error
        if alone:
            _clean(folder)
        yield


def _clean(folder: Path) -> None:
    for draft in (*folder.glob(".step-*.tmp"), *folder.glob(f".{STATE}.*.tmp")):
        draft.unlink(missing_ok=True)
    kept = _tensors_of(folder)
    for tensors in folder.glob("step-*.safetensors"):
        if kept not in (None, tensors.name):
            tensors.unlink(missing_ok=True)


def save(
    folder: Path,
    config: TrainConfig,
    corpus: Corpus,
    model: GPT,
    optimizer: torch.optim.AdamW,
    seen: Progress,
) -> None:
    """Write a checkpoint; raises OSError where it cannot be written, and leaves the one before."""
    import safetensors.torch

    names: dict[Tensor, str] = {weight: name for name, weight in model.named_parameters()}
    tensors = {f"model.{name}": weight.detach().contiguous() for weight, name in names.items()}
    for weight, moments in optimizer.state.items():
        for key, value in moments.items():
            tensors[f"{key}.{names[weight]}"] = torch.as_tensor(value).contiguous()
    file = folder / f"step-{seen.step:08d}.safetensors"
    with replacing(file) as draft:
        # Not by save_file, whose own drafts outlive a kill and are for nobody else to read. The
        # price is one more copy of the tensors in memory.
        draft.write_bytes(safetensors.torch.save(tensors))
    state = {"tensors": file.name, "config": asdict(config), "corpus": corpus.digest}
    state["tokenizer"] = corpus.tokenizer.state()
    content = _json(state | {"progress": asdict(seen)})
    before = _tensors_of(folder)
    with replacing(folder / STATE) as draft:
        draft.write_text(content, encoding="utf-8")
    if before not in (None, file.name):
        (folder / before).unlink(missing_ok=True)


def resume(
    folder: Path,
    config: TrainConfig,
    digest: str,
    model: GPT,
    optimizer: torch.optim.AdamW,
) -> Progress:
    device = next(model.parameters()).device
    state, seen, tensors = _read(folder, str(device))
    stored, asked = _flat(state["config"]), _flat(json.loads(_json(asdict(config))))
    changed = [
        f"{key} {stored.get(key)}, not {asked.get(key)}"
        for key in asked | stored
        if asked.get(key) != stored.get(key) and key not in ("checkpoint_every", "steps")
    ]
    if config.steps < seen.step:
        changed.append(f"taken {seen.step} steps, not {config.steps}")
    if state["corpus"] != digest:
        changed.append("another text, or other tokens, than it is given now")
    if changed:
        raise ValueError(
            f"expected the configuration of the run in {folder}, which has {'; '.join(changed)}; "
            "give another folder for another run"
        )
    with _whole(folder):
        _check(model, tensors)
    seen.calls += seen.step < config.steps
    _fill(model, tensors)
    for name, weight in model.named_parameters():
        optimizer.state[weight] = {
            key: tensors[f"{key}.{name}"].to("cpu" if key == "step" else device) for key in MOMENTS
        }
    return seen


@contextmanager
def _whole(folder: Path) -> Iterator[None]:
    """What a damaged run raises, as one error; a file that cannot be read stays what it is."""
    damage = load_package("safetensors", "lm", "a checkpoint").SafetensorError
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, damage) as error:
        raise ValueError(
            f"expected a whole run in {folder}, of this version of gomhc, got {error!r}; if it is "
            "damaged, delete it to begin again"
        ) from error


def _read(folder: Path, device: str) -> tuple[dict[str, Any], Progress, dict[str, Tensor]]:
    """State, progress and tensors of a run."""
    files = load_package("safetensors.torch", "lm", "a checkpoint")
    with _whole(folder):
        state = stored_state(folder)
        file = folder / state["tensors"]
        with file.open("rb"):  # of a file that may not be read safetensors says that there is none
            tensors = files.load_file(file, device=device)
        progress = dict(state["progress"])
        evaluations, watched = (
            [(step, value) for step, value in progress.pop(name)]
            for name in ("evaluations", "watched")
        )
        seen = Progress(**progress, evaluations=evaluations, watched=watched)
        if seen.step != len(seen.loss):
            raise ValueError(f"{len(seen.loss)} losses of {seen.step} steps")
        _flat(state["config"]), state["corpus"], state["tokenizer"]  # it must not lack any
    return state, seen, tensors


def _check(model: GPT, tensors: dict[str, Tensor]) -> None:
    """Whether tensors are those of a model and its moments."""
    expected = {
        f"{key}.{name}": () if key == "step" else tuple(weight.shape)
        for name, weight in model.named_parameters()
        for key in ("model", *MOMENTS)
    }
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if shapes != expected:
        wrong = [k for k in expected | shapes if expected.get(k) != shapes.get(k)]
        raise ValueError(f"{len(wrong)} tensors that do not fit its model, such as {wrong[0]}")


@torch.no_grad()
def _fill(model: GPT, tensors: dict[str, Tensor]) -> None:
    for name, weight in model.named_parameters():
        weight.copy_(tensors[f"model.{name}"])


def _json(content: dict[str, Any]) -> str:
    """JSON, in which NumPy's numbers are as good as Python's."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.generic):
            return value.item()
        raise TypeError(f"expected plain JSON, got {value!r}")

    return json.dumps(content, indent=1, default=plain)


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    """Fields of a run's configuration, those of its model among them."""
    return {k: v for k, v in config.items() if k != "model"} | config["model"]
