"""What a rule of one's own is written with. The engine's rules stand in `occluscope.engine.incremental.rules`."""
