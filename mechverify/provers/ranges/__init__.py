"""How claims about ranges are proved: search.py has the provers in the order in which they are tried; find.py goes
through lemmas first, and asks a solver last; confirm.py has the kernel check what was found."""
