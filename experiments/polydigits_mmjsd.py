"""mmJSD on PolyDigits: experts priced by their Jensen-Shannon divergence (Sutter et al. 2020, arXiv:2006.08242).

COMMAND   mmgen train experiments/polydigits_mmjsd.py --workdir runs/polydigits_mmjsd
EXPECTED  what `polydigits.py` says; `python experiments/polydigits_table.py` compares it with the others
"""

from polydigits import make

experiment = make("mmjsd")
