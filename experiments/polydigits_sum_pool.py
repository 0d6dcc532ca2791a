"""The masked bound on PolyDigits, with experts summed up by a network (Hirt et al. 2024, arXiv:2309.00380).

COMMAND   mmgen train experiments/polydigits_sum_pool.py --workdir runs/polydigits_sum_pool
EXPECTED  what `polydigits.py` says; `python experiments/polydigits_table.py` compares it with the others
"""

from polydigits import make

experiment = make("sum_pool")
