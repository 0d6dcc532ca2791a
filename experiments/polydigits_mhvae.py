"""MHVAE on PolyDigits: a hierarchy of codes, trained on all sets of views (Dorent et al. 2023, arXiv:2309.08747).

COMMAND   mmgen train experiments/polydigits_mhvae.py --workdir runs/polydigits_mhvae
EXPECTED  what `polydigits.py` says; `python experiments/polydigits_table.py` compares it with the others
"""

from polydigits import make

experiment = make("mhvae")
