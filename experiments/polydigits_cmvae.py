"""CMVAE on PolyDigits: MMVAE+ with clusters of shared codes (Palumbo et al. 2024).

COMMAND   mmgen train experiments/polydigits_cmvae.py --workdir runs/polydigits_cmvae
EXPECTED  what `polydigits.py` says; `python experiments/polydigits_table.py` compares it with the others
"""

from polydigits import make

experiment = make("cmvae")
