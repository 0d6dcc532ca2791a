"""MVTCAE on PolyDigits: a product of experts that each must answer for all of them (Hwang et al., NeurIPS 2021).

COMMAND   mmgen train experiments/polydigits_mvtcae.py --workdir runs/polydigits_mvtcae
EXPECTED  the row mvtcae of benchmarks/results/polydigits_table.md
"""

from polydigits import make

experiment = make("mvtcae")
