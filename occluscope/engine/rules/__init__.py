"""Names for writing your own rules. The engine's rules are in `occluscope.engine.incremental.rules`."""
