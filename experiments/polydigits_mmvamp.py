"""MM-VAMP on PolyDigits: a VAE a view, drawn together by a prior of all experts (Sutter et al. 2024).

COMMAND   mmgen train experiments/polydigits_mmvamp.py --workdir runs/polydigits_mmvamp
EXPECTED  what `polydigits.py` says; `python experiments/polydigits_table.py` compares it with the others
"""

from polydigits import make

experiment = make("mmvamp")
