"""MMVAE+ on PolyDigits: private codes that cannot serve as a short cut (Palumbo et al. 2023).

COMMAND   mmgen train experiments/polydigits_mmvae_plus.py --workdir runs/polydigits_mmvae_plus
EXPECTED  what `polydigits.py` says; `python experiments/polydigits_table.py` compares it with the others
"""

from polydigits import make

experiment = make("mmvae_plus")
