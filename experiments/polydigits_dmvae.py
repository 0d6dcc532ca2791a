"""DMVAE on PolyDigits: shared and private codes, with a bound for every expert (Lee & Pavlovic 2021).

COMMAND   mmgen train experiments/polydigits_dmvae.py --workdir runs/polydigits_dmvae
EXPECTED  what `polydigits.py` says; `python experiments/polydigits_table.py` compares it with the others
"""

from polydigits import make

experiment = make("dmvae")
