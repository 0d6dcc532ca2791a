"""MMVAE on PolyDigits: a mixture of experts, and a bound by importance sampling (Shi et al. 2019).

COMMAND   mmgen train experiments/polydigits_mmvae.py --workdir runs/polydigits_mmvae
EXPECTED  the row mmvae of benchmarks/results/polydigits_table.md
"""

from polydigits import make

experiment = make("mmvae")
