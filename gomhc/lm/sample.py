"""`python -m gomhc.lm.sample`: text of a run, as its last checkpoint has it."""

import argparse
import io
import sys
from pathlib import Path

from gomhc.lm.train import chosen_device, load, load_tokenizer


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gomhc.lm.sample", description=__doc__)
    parser.add_argument("run", type=Path, help="the --out of a training")
    parser.add_argument("--prompt", default="", help="what to go on from (the first token)")
    parser.add_argument("--count", type=int, default=200, help="tokens to add (%(default)s)")
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="0 takes the most probable (%(default)s)"
    )
    parser.add_argument("--top-k", type=int, help="draw from so many tokens only (all)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (%(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Write from the command line; returns the exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # it may know fewer characters than the run
        sys.stdout.reconfigure(errors="replace")
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        tokenizer = load_tokenizer(options.run)
        model = load(options.run).to(chosen_device(options.device))
        written = model.generate(
            list(tokenizer.encode(options.prompt)) or [0],
            options.count,
            temperature=options.temperature,
            top_k=options.top_k,
            vocabulary=tokenizer.size,
            seed=options.seed,
        )
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    print(tokenizer.decode(written))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
