"""Upkeep, done by the reconciler: units of dead workers freed, waiting units announced, old jobs deleted."""
