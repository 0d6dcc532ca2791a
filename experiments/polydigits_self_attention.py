"""The masked bound on PolyDigits, with experts that attend to one another (Hirt et al. 2024).

COMMAND   mmgen train experiments/polydigits_self_attention.py --workdir runs/polydigits_self_attention
EXPECTED  the row self_attention of benchmarks/results/polydigits_table.md
"""

from polydigits import make

experiment = make("self_attention")
