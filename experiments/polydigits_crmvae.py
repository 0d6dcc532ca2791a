"""CRMVAE on PolyDigits: views made of the product of experts and of each (Suzuki & Matsuo 2023).

COMMAND   mmgen train experiments/polydigits_crmvae.py --workdir runs/polydigits_crmvae
EXPECTED  the row crmvae of benchmarks/results/polydigits_table.md
"""

from polydigits import make

experiment = make("crmvae")
