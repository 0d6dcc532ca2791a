"""MVAE on PolyDigits: a product of experts, trained on sub-sampled sets of views (Wu & Goodman 2018).

COMMAND   mmgen train experiments/polydigits_mvae.py --workdir runs/polydigits_mvae
EXPECTED  the row mvae of benchmarks/results/polydigits_table.md
"""

from polydigits import make

experiment = make("mvae")
