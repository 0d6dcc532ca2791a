"""JNF on PolyDigits: a joint VAE first, then a flow for each view (Senellart et al. 2023, arXiv:2305.11832).

COMMAND   mmgen train experiments/polydigits_jnf.py --workdir runs/polydigits_jnf
EXPECTED  what `polydigits.py` says; `python experiments/polydigits_table.py` compares it with the others
"""

from polydigits import make

experiment = make("jnf")
