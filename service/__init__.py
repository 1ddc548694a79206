"""The control plane: HTTP API, pages, database and queue publishing. Never imports torch."""
