"""Other people's models: streams for the residuals that they have."""

from gomhc.convert.saved import from_pretrained
from gomhc.convert.streams import Conversion, add_streams
from gomhc.convert.undo import remove_streams

__all__ = ["Conversion", "add_streams", "from_pretrained", "remove_streams"]
