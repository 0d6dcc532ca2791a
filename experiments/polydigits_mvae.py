"""MVAE on PolyDigits: a product of experts, trained on sub-sampled sets of views (Wu & Goodman 2018).

COMMAND   mmgen train experiments/polydigits_mvae.py --workdir runs/polydigits_mvae
EXPECTED  what `polydigits.py` says; `python experiments/polydigits_table.py` compares it with the others
"""

from polydigits import make

experiment = make("mvae")
