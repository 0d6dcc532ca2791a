"""The plain bound on PolyDigits, by a product of experts that learns whom to believe (Cao & Fleet 2014).

COMMAND   mmgen train experiments/polydigits_gpoe.py --workdir runs/polydigits_gpoe
EXPECTED  what `polydigits.py` says; `python experiments/polydigits_table.py` compares it with the others
"""

from polydigits import make

experiment = make("gpoe")
