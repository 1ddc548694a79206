"""Registering a rule: `rule(*targets)` takes a builder, which gets a `Call` and gives a `Translation`."""

from occluscope.engine.incremental.rules.table import RULES, Builder, Call, Translation, rule

__all__ = ["RULES", "Builder", "Call", "Translation", "rule"]
