"""Other people's models: streams for those that have none, another mixer for those that have."""

from gomhc.convert.saved import from_pretrained
from gomhc.convert.streams import Conversion, add_streams
from gomhc.convert.swap import DeepseekV4Mixing, ManifoldConstrainedMixing, replace_mixers
from gomhc.convert.undo import remove_streams

__all__ = [
    "Conversion",
    "DeepseekV4Mixing",
    "ManifoldConstrainedMixing",
    "add_streams",
    "from_pretrained",
    "remove_streams",
    "replace_mixers",
]
