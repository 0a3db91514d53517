"""`python -m gomhc.lm.train`: train a GPT from the command line."""

import argparse
import inspect
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

from gomhc.lm import data
from gomhc.lm.model import PRESETS, RESIDUAL, STREAMS, GPTConfig, preset
from gomhc.lm.train.checkpoint import warmup_of
from gomhc.lm.train.config import Progress, TrainConfig
from gomhc.lm.train.loop import train
from gomhc.mixers import MIXERS


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM as a question that `train` can ask; a second one ends it as usual."""
    asked: list[int] = []

    def note(number: int, frame: object) -> None:
        asked.append(number)
        for each, usual in before.items():
            signal.signal(each, usual)

    before = {each: signal.signal(each, note) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for each, usual in before.items():
            signal.signal(each, usual)


def _parser() -> argparse.ArgumentParser:
    """Options of the streams and of checkpoints are absent unless given."""
    model = {field.name: field.default for field in fields(GPTConfig)}
    training = {field.name: field.default for field in fields(TrainConfig)}
    absent = argparse.SUPPRESS
    parser = argparse.ArgumentParser(prog="python -m gomhc.lm.train", description="Train a GPT.")
    parser.add_argument("--preset", choices=PRESETS, default="nano", help="(%(default)s)")
    parser.add_argument(
        "--mixer", choices=[RESIDUAL, *MIXERS], default=RESIDUAL, help="(%(default)s: one stream)"
    )
    streams = parser.add_argument_group("streams, with a mixer only", argument_default=absent)
    streams.add_argument("--streams", type=int, dest="d", metavar="D", help=f"d ({model['d']})")
    streams.add_argument(
        "--block-size-s", type=int, dest="s", metavar="S", help="s of go-mhc and kron-go"
    )
    streams.add_argument(
        "--factors", type=int, nargs="+", help="of a Kronecker product of such mixers"
    )
    streams.add_argument("--iterations", type=int, help="of mhc")
    streams.add_argument(
        "--off-diagonal-mass", type=float, help=f"of H_res at first ({model['off_diagonal_mass']})"
    )
    streams.add_argument(
        "--keep-function",
        action="store_true",
        help="start as the plain residual; takes --reduce mean and --offsets 0 along",
    )
    streams.add_argument("--frozen", action="store_true", help="do not train θ")
    streams.add_argument("--dead-start", action="store_true", help="start θ at 0")
    streams.add_argument("--offsets", type=float, help=f"spread at first ({model['offsets']})")
    streams.add_argument(
        "--inputs", choices=["all", "mean"], help=f"of the matrices ({model['inputs']})"
    )
    streams.add_argument(
        "--reduce", choices=["read", "mean", "sum"], help=f"at the end ({model['reduce']})"
    )
    streams.add_argument("--norm-streams", action="store_true", help="norm before the reduction")
    parser.add_argument("--dropout", type=float, help="the preset's if not given")
    parser.add_argument(
        "--data",
        default="stories",
        help="stories (the same ones for every seed), shakespeare, tinystories, or a text file; "
        "the model's vocabulary is the text's (%(default)s)",
    )
    parser.add_argument("--copy", help="file or folder with a copy of shakespeare or tinystories")
    parser.add_argument("--level", choices=["characters", "bpe"], default="characters")
    parser.add_argument(
        "--warmup",
        type=int,
        help="(20, or fewer if there are fewer steps; that of the run that goes on)",
    )
    for name in ("steps", "batch", "accumulation", "seed", "evaluate_every"):
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=int, default=training[name], help="(%(default)s)")
    for name in ("learning_rate", "final", "weight_decay", "clip"):
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=float, default=training[name], help="(%(default)s)")
    parser.add_argument(
        "--decay-connections",
        action=argparse.BooleanOptionalAction,
        default=training["decay_connections"],
        help="whether weight decay counts for the matrices of hyper-connections",
    )
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--compile", action="store_true", help="go through torch.compile")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    parser.add_argument("--out", type=Path, help="folder of checkpoints; a run there is resumed")
    every = f"steps, with --out only ({training['checkpoint_every']})"
    parser.add_argument("--checkpoint-every", type=int, default=absent, help=every)
    return parser


def _refuse_what_has_no_effect(
    parser: argparse.ArgumentParser, options: argparse.Namespace
) -> None:
    given = [name for name in STREAMS if hasattr(options, name)]
    if options.mixer == RESIDUAL and given:
        name = {"d": "streams", "s": "block-size-s"}.get(given[0], given[0].replace("_", "-"))
        parser.error(f"expected a mixer for --{name}, got residual")
    if hasattr(options, "s") and "s" not in inspect.signature(MIXERS[options.mixer]).parameters:
        parser.error(f"expected --mixer go-mhc or kron-go for --block-size-s, got {options.mixer}")
    if options.copy is not None and options.data not in ("shakespeare", "tinystories"):
        parser.error(f"expected --data shakespeare or tinystories for --copy, got {options.data}")
    if options.level != "characters" and options.data in ("stories", "tinystories"):
        parser.error(f"expected --data shakespeare or a file for --level, got {options.data}")
    if hasattr(options, "checkpoint_every") and options.out is None:
        parser.error("expected --out for --checkpoint-every, got none")


def _corpus(options: argparse.Namespace, block: int) -> data.Corpus:
    if options.data == "stories":
        return data.stories(block)
    if options.data == "shakespeare":
        return data.tiny_shakespeare(options.copy, block=block, level=options.level)
    if options.data == "tinystories":
        source = {} if options.copy is None else {"source": options.copy}
        return data.tiny_stories(block=block, **source)
    if not Path(options.data).is_file():
        raise ValueError(
            "expected stories, shakespeare, tinystories or the path of a text file, found none at "
            f"{options.data!r}"
        )
    return data.text(options.data, block, options.level)


def _plan(options: argparse.Namespace, corpus: data.Corpus) -> TrainConfig:
    given = vars(options)
    streams = {name: given[name] for name in STREAMS if name in given}
    if "factors" in streams:
        streams["factors"] = tuple(streams["factors"])
    if "keep_function" in streams:
        streams = {"reduce": "mean", "offsets": 0.0} | streams
    sizes = PRESETS[options.preset]
    model = preset(
        options.preset,
        vocabulary=corpus.vocabulary,
        mixer=options.mixer,
        dropout=sizes.dropout if options.dropout is None else options.dropout,
        **streams,
    )
    names = {field.name for field in fields(TrainConfig)} & given.keys()
    training = {name: given[name] for name in names}
    if options.warmup is None:
        stored = None if options.out is None else warmup_of(options.out)
        training["warmup"] = min(20 if stored is None else stored, options.steps)
    return TrainConfig(model, **training)


def _summary(mixer: str, parameters: int, seen: Progress, floor: float | None) -> str:
    step, loss = seen.evaluations[-1]
    above = "" if floor is None else f", {loss - floor:.4f} above the floor"
    return (
        f"{mixer}, {parameters:,} parameters, {step} steps: evaluation loss {loss:.4f} nats a "
        f"token{above}; {seen.tokens_per_second:,.0f} tokens/s"
    )


def main(arguments: list[str] | None = None) -> int:
    """Train from the command line; returns the exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # it may know no θ
        sys.stdout.reconfigure(errors="replace")
    parser = _parser()
    options = parser.parse_args(arguments)
    _refuse_what_has_no_effect(parser, options)
    try:
        corpus = _corpus(options, PRESETS[options.preset].block)
        config = _plan(options, corpus)
        if options.out is None:
            print("no --out: the model will be dropped at the end", file=sys.stderr)
        with _interrupts() as stop:
            model, seen = train(
                config, corpus, device=options.device, out=options.out, progress=True, stop=stop
            )
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    if int(os.environ.get("RANK", "0")) > 0:
        return 0
    if seen.step < config.steps:
        rest = "the same command goes on" if options.out else "nothing is kept without --out"
        print(f"stopped after {seen.step} of {config.steps} steps: {rest}")
        return 130
    print(_summary(options.mixer, model.num_parameters(), seen, corpus.floor))
    if options.out is not None:
        folder = f'"{options.out}"' if " " in str(options.out) else options.out
        print(f'sample from it: python -m gomhc.lm.sample {folder} --prompt "…"')
        print(f"the model: gomhc.lm.train.load({str(options.out)!r})")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
