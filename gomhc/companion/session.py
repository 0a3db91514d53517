"""Long trainings in a notebook whose session may end: where they are kept, how long they take.

The Colab edition of chapter 7 calls `begin` where the book's own notebook keeps no checkpoints.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from gomhc.companion.records import duration
from gomhc.companion.records.provenance import device_name
from gomhc.companion.studies.estimate import SHORT, STEPS
from gomhc.lm.data import Corpus
from gomhc.lm.train import TrainConfig, chosen_device, train
from gomhc.lm.train.checkpoint import STATE, stored_state

__all__ = ["begin"]

DRIVE = Path("/content/drive/MyDrive")  # where Colab mounts a user's Google Drive
RUNTIME = Path("/content")  # Colab's own disk


def begin(
    name: str, configs: Mapping[str, TrainConfig], corpus: Corpus, profile: str, device: str
) -> dict[str, Path]:
    """Say where trainings are kept, how far they are, and how long the rest takes.

    The time comes from a few steps of each, timed here and now. A folder is named after the
    configuration and the text, so that others never go on with its checkpoints.

    Args:
        name: of the notebook.
        configs: by label.
        corpus: that all are trained on.
        profile: of the notebook; for "full" on a CPU that was not asked for by name, `begin` asks
            whether to go on.
        device: as the parameter of the notebook says, "auto", "cpu" or "cuda".

    Returns:
        Label -> folder of checkpoints, the `out` of `train`.

    Raises:
        RuntimeError: if the answer is no.
        ValueError: if there is nobody to ask, as under papermill; or a folder holds a damaged run.
    """
    home, kept = _home()
    folders = {k: home / name / _folder(k, config, corpus) for k, config in configs.items()}
    print(f"Results and checkpoints: {home / name} ({kept})")
    left = {}
    for label, config in configs.items():
        taken = _taken(folders[label])
        left[label] = config.steps - taken
        print(f"  {label}: {taken} of {config.steps} steps taken")
    if not any(left.values()):
        print("All are trained: what follows is read from there.")
        return folders
    where = chosen_device(device)
    seconds = sum(_seconds(configs[k], corpus, device, rest) for k, rest in left.items() if rest)
    machine = device_name([where.index or 0] if where.type == "cuda" else [])
    print(
        f"The {sum(left.values())} steps left take about {duration(seconds)} on {machine}: "
        f"{STEPS} steps of each training were timed just now; evaluations come on top.\n"
        "If the session ends, run all cells again: they go on from the last checkpoint.",
        flush=True,
    )
    if profile == "full" and device == "auto" and where.type == "cpu":
        _ask(seconds)
    return folders


def _home() -> tuple[Path, str]:
    """The folder of all notebooks, and how long it lasts."""
    if DRIVE.is_dir():
        return DRIVE / "gomhc", "Google Drive"
    ends = "gone when this runtime ends: mount Google Drive to keep them"
    return Path("gomhc-results").resolve(), ends if RUNTIME.is_dir() else "this machine"


def _folder(label: str, config: TrainConfig, corpus: Corpus) -> str:
    whole = dataclasses.asdict(config) | {"corpus": corpus.digest}
    digest = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
    plain = label.replace(" ", "-").replace("=", "")
    return f"{plain}-{config.steps}-steps-seed{config.seed}-{digest[:8]}"


def _taken(folder: Path) -> int:
    return stored_state(folder)["progress"]["step"] if (folder / STATE).exists() else 0


def _seconds(config: TrainConfig, corpus: Corpus, device: str, steps: int) -> float:
    """What so many steps take, from a few that are timed."""
    _, seen = train(dataclasses.replace(config, **SHORT), corpus, device=device)
    return steps * config.batch * corpus.block / seen.tokens_per_second


def _ask(seconds: float) -> None:
    """Have somebody confirm the profile full on a CPU."""
    sizes = f"profile full on a CPU, about {duration(seconds)}"
    ways = (
        'profile = "book" is made for a CPU, device = "cpu" runs the profile full on one unasked, '
        "and Colab has GPUs under Runtime → Change runtime type"
    )
    try:
        answer = input(f"{sizes}. Go on? [y/N] ")
    except (EOFError, NotImplementedError):  # the second is IPython's, where no one can type
        raise ValueError(
            f"expected a GPU for the profile full, or somebody to ask; got {sizes}, and no "
            f"answer: {ways}"
        ) from None
    if answer.strip().lower() not in ("y", "yes"):
        raise RuntimeError(f"stopped before the training: {ways}")
