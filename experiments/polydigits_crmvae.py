"""CRMVAE on PolyDigits: views made of the product of experts and of each (Suzuki & Matsuo 2023).

COMMAND   mmgen train experiments/polydigits_crmvae.py --workdir runs/polydigits_crmvae
EXPECTED  what `polydigits.py` says; `python experiments/polydigits_table.py` compares it with the others
"""

from polydigits import make

experiment = make("crmvae")
