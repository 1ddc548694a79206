"""What each kind of operation computes of a changed rectangle: one module a kind, and the table that finds them."""
