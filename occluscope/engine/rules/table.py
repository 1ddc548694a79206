"""Registers rules: `rule(*targets)` decorates a builder, which takes a `Call` and returns a `Translation`."""

from occluscope.engine.incremental.rules.table import RULES, Builder, Call, Translation, rule

__all__ = ["RULES", "Builder", "Call", "Translation", "rule"]
