"""The database: tables, and the few functions that change a job's state."""
