"""Train a GPT, with checkpoints that can be killed at any moment.

python -m gomhc.lm.train --mixer go-mhc --streams 4 --block-size-s 2 --preset nano --out runs/a
"""

from gomhc.lm.train.checkpoint import load, load_tokenizer
from gomhc.lm.train.config import Progress, TrainConfig, learning_rate
from gomhc.lm.train.loop import chosen_device, evaluate, train
from gomhc.lm.train.non_finite import NonFiniteError

__all__ = [
    "NonFiniteError",
    "Progress",
    "TrainConfig",
    "chosen_device",
    "evaluate",
    "learning_rate",
    "load",
    "load_tokenizer",
    "train",
]
