"""The masked bound on PolyDigits, with experts summed up by a network (Hirt et al. 2024, arXiv:2309.00380).

COMMAND   mmgen train experiments/polydigits_sum_pool.py --workdir runs/polydigits_sum_pool
EXPECTED  the row sum_pool of benchmarks/results/polydigits_table.md
"""

from polydigits import make

experiment = make("sum_pool")
