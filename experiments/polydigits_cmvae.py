"""CMVAE on PolyDigits: MMVAE+ with clusters of shared codes (Palumbo et al. 2024).

COMMAND   mmgen train experiments/polydigits_cmvae.py --workdir runs/polydigits_cmvae
EXPECTED  the row cmvae of benchmarks/results/polydigits_table.md
"""

from polydigits import make

experiment = make("cmvae")
