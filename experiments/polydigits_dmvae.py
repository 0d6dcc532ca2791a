"""DMVAE on PolyDigits: shared and private codes, with a bound for every expert (Lee & Pavlovic 2021).

COMMAND   mmgen train experiments/polydigits_dmvae.py --workdir runs/polydigits_dmvae
EXPECTED  the row dmvae of benchmarks/results/polydigits_table.md
"""

from polydigits import make

experiment = make("dmvae")
