"""Nexus on PolyDigits: a code for each view, and a joint code above them (Vasco et al. 2022, arXiv:2006.02991).

COMMAND   mmgen train experiments/polydigits_nexus.py --workdir runs/polydigits_nexus
EXPECTED  the row nexus of benchmarks/results/polydigits_table.md
"""

from polydigits import make

experiment = make("nexus")
