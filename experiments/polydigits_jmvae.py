"""JMVAE on PolyDigits: a joint encoder, from which the experts of single views learn (Suzuki et al. 2016).

COMMAND   mmgen train experiments/polydigits_jmvae.py --workdir runs/polydigits_jmvae
EXPECTED  the row jmvae of benchmarks/results/polydigits_table.md
"""

from polydigits import make

experiment = make("jmvae")
