"""How claims about accuracy are proved: find.py has the provers in the order in which they are tried, and what is
found; confirm.py has the kernel check it. strategies/ are proofs by name."""
