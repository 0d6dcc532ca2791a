"""JMVAE on PolyDigits: a joint encoder, from which the experts of single views learn (Suzuki et al. 2016).

COMMAND   mmgen train experiments/polydigits_jmvae.py --workdir runs/polydigits_jmvae
EXPECTED  what `polydigits.py` says; `python experiments/polydigits_table.py` compares it with the others
"""

from polydigits import make

experiment = make("jmvae")
