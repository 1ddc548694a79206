"""Alembic migrations of the store; ``occluscope migrate`` applies them."""
