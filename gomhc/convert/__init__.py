"""Other people's models: another mixer in one that has streams."""

from gomhc.convert.swap import DeepseekV4Mixing, ManifoldConstrainedMixing, replace_mixers

__all__ = ["DeepseekV4Mixing", "ManifoldConstrainedMixing", "replace_mixers"]
