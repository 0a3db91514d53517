"""The options of a conversion, in the configuration of the transformers model that is saved."""

import copy
from typing import Any

from torch import nn

CONFIG = "gomhc"  # its name there


def configuration(module: nn.Module) -> Any:
    """What `save_pretrained` writes beside the weights; None if the module has no such thing."""
    config = vars(module).get("config")
    return config if hasattr(config, "to_json_string") else None


def place_of(model: nn.Module, stack: nn.Module) -> tuple[Any, str]:
    """The outermost transformers model with the stack, and the stack's name in its base.

    The model is None if there is no such.
    """
    for module in model.modules():
        base = getattr(type(module), "base_model_prefix", None)
        if configuration(module) is None or base is None:
            continue
        for name, inside in module.named_modules():
            if inside is stack:
                return module, name.removeprefix(f"{base}.")
    return None, ""


def remember(model: nn.Module, holder: Any, entry: dict[str, Any]) -> None:
    """Put the options of a stack into the holder's configuration.

    Models that are made from one configuration share it, and would share the options. So this model
    first gets a copy, one for all its parts that had the same.
    """
    memo: dict[int, Any] = {}
    for module in model.modules():
        config = configuration(module)
        if config is not None:
            module.config = copy.deepcopy(config, memo)
    entries = getattr(holder.config, CONFIG, ())
    others = [other for other in entries if other["stack"] != entry["stack"]]
    setattr(holder.config, CONFIG, [*others, entry])


def forget(model: nn.Module, stacks: set[str]) -> None:
    """Take the options of some stacks out of all configurations that can be seen from here.

    Connections see that of the model that holds them, whatever part of it is given.
    """
    for module in model.modules():
        config = configuration(module)
        if not hasattr(config, CONFIG):
            continue
        left = [entry for entry in config.gomhc if entry["stack"] not in stacks]
        if left:
            setattr(config, CONFIG, left)
        else:
            delattr(config, CONFIG)
