"""TELBO on PolyDigits: a joint VAE first, then the expert of each view (Vedantam et al. 2018, arXiv:1705.10762).

COMMAND   mmgen train experiments/polydigits_telbo.py --workdir runs/polydigits_telbo
EXPECTED  the row telbo of benchmarks/results/polydigits_table.md
"""

from polydigits import make

experiment = make("telbo")
