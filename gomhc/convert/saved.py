"""Models with streams on disk, as transformers writes and reads them."""

from os import PathLike
from typing import Any

from torch import nn

from gomhc.convert.configuration import CONFIG
from gomhc.convert.stacks import find_stack
from gomhc.convert.streams import convert
from gomhc.hyper_connections import HyperConnection

__all__ = ["from_pretrained"]


def from_pretrained(model_class: type[Any], folder: str | PathLike[str], **options: Any) -> Any:
    """The model with streams that `save_pretrained` of a converted model wrote.

    Its `config.json` keeps the options of `add_streams`. No class of transformers reads them:
    `model_class.from_pretrained(folder)` would give a model without streams, and warn that some
    stored weights were not used.

    Args:
        model_class: of the model that was saved, such as `GPT2LMHeadModel`, or of its base.
        folder: what it was saved to.
        options: of `model_class.from_pretrained`.

    Returns:
        What that returns, an instance of `model_class`, in evaluation mode.

    Raises:
        TypeError: if the class has no `from_pretrained` and configuration of its own, as have the
            Auto classes.
        ValueError: if the folder's configuration has no streams, or its weights lack some of them.
    """
    if not (isinstance(model_class, type) and hasattr(model_class, "config_class")):
        got = type(model_class).__name__
        got = model_class.__name__ if isinstance(model_class, type) else f"an object of type {got}"
        raise TypeError(
            f"expected the class of a transformers model, such as GPT2LMHeadModel, got {got}"
        )

    def start(self: Any, config: Any, *arguments: Any, **settings: Any) -> None:
        model_class.__init__(self, config, *arguments, **settings)
        add_again(self, "the config that is given" if "config" in options else folder)

    # transformers makes a model without memory and fills it, so that streams have to be there
    # first. Its tables know classes by their names.
    names = {"__module__": model_class.__module__, "__qualname__": model_class.__qualname__}
    loader: Any = type(model_class.__name__, (model_class,), {"__init__": start, **names})
    with_report = options.pop("output_loading_info", False)
    model, report = loader.from_pretrained(folder, output_loading_info=True, **options)
    lost = [key for key in report["missing_keys"] if ".hyper_connections." in key]
    if lost:
        raise ValueError(
            f"expected the weights of all streams in {folder}, but {min(lost)} is missing"
        )
    model.__class__ = model_class
    move_tables(model)
    return (model, report) if with_report else model


def add_again(model: Any, source: str | PathLike[str]) -> None:
    """Convert a model that has its first weights as its configuration says."""
    if not getattr(model.config, CONFIG, None):
        raise ValueError(
            f"expected a model that was saved after add_streams, got one without streams: {source}"
        )
    for entry in model.config.gomhc:
        chosen = {key: value for key, value in entry.items() if key != "stack"}
        try:
            name, stack = find_stack(model, entry["stack"])
        except ValueError as error:
            kind = type(model).__name__
            raise ValueError(
                f"expected the class of the model that was saved, but {kind} has no stack "
                f"{entry['stack']!r}, which has the streams of {source}"
            ) from error
        convert(model, name, stack, **chosen)


def move_tables(model: nn.Module) -> None:
    """Transformers fills a model without moving it, so that mixers' tables stay where they were."""
    for connection in model.modules():
        if isinstance(connection, HyperConnection):
            connection.mixer.to(connection.weight.device)
