"""MMVAE on PolyDigits: a mixture of experts, and a bound by importance sampling (Shi et al. 2019).

COMMAND   mmgen train experiments/polydigits_mmvae.py --workdir runs/polydigits_mmvae
EXPECTED  what `polydigits.py` says; `python experiments/polydigits_table.py` compares it with the others
"""

from polydigits import make

experiment = make("mmvae")
