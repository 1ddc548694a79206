"""How the API is served: an event loop that holds connections, and a few threads that answer whole requests."""
