"""Rules: what each kind of operation computes for a changed rectangle. One module for each kind, and their table."""
