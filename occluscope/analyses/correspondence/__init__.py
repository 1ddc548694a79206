"""Correspondence (Zeiler & Fergus 2013, section 4.2, Table 1): does the network know which part is which."""
