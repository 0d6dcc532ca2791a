"""MoPoE on PolyDigits: a mixture of the products of all sets of views (Sutter et al. 2021, arXiv:2105.02470).

COMMAND   mmgen train experiments/polydigits_mopoe.py --workdir runs/polydigits_mopoe
EXPECTED  what `polydigits.py` says; `python experiments/polydigits_table.py` compares it with the others
"""

from polydigits import make

experiment = make("mopoe")
