"""The masked bound on PolyDigits, with experts that attend to one another (Hirt et al. 2024).

COMMAND   mmgen train experiments/polydigits_self_attention.py --workdir runs/polydigits_self_attention
EXPECTED  what `polydigits.py` says; `python experiments/polydigits_table.py` compares it with the others
"""

from polydigits import make

experiment = make("self_attention")
