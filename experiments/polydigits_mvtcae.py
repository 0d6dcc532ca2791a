"""MVTCAE on PolyDigits: a product of experts that each must answer for all of them (Hwang et al., NeurIPS 2021).

COMMAND   mmgen train experiments/polydigits_mvtcae.py --workdir runs/polydigits_mvtcae
EXPECTED  what `polydigits.py` says; `python experiments/polydigits_table.py` compares it with the others
"""

from polydigits import make

experiment = make("mvtcae")
