"""TELBO on PolyDigits: a joint VAE first, then the expert of each view (Vedantam et al. 2018, arXiv:1705.10762).

COMMAND   mmgen train experiments/polydigits_telbo.py --workdir runs/polydigits_telbo
EXPECTED  what `polydigits.py` says; `python experiments/polydigits_table.py` compares it with the others
"""

from polydigits import make

experiment = make("telbo")
