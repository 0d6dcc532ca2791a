"""Nexus on PolyDigits: a code for each view, and a joint code above them (Vasco et al. 2022, arXiv:2006.02991).

COMMAND   mmgen train experiments/polydigits_nexus.py --workdir runs/polydigits_nexus
EXPECTED  what `polydigits.py` says; `python experiments/polydigits_table.py` compares it with the others
"""

from polydigits import make

experiment = make("nexus")
