"""The benchmarks: `python -m benchmarks` lists them, `python -m benchmarks NAME ...` runs one."""

from __future__ import annotations

import ast
import runpy
import sys
from pathlib import Path

FOLDER = Path(__file__).parent


def scripts() -> dict[str, str]:
    """The scripts by name, each with the first sentence of its docstring."""
    found = {}
    for path in sorted(FOLDER.glob("[!_]*.py")):
        text = path.read_text()
        if 'if __name__ == "__main__"' in text and not path.stem.endswith("_worker"):
            found[path.stem] = ast.get_docstring(ast.parse(text)).partition("\n")[0]
    return found


def main() -> None:
    found, name = scripts(), "".join(sys.argv[1:2])
    if name in found:
        sys.path.insert(0, str(FOLDER))  # as `python benchmarks/NAME.py` does
        sys.argv = [str(FOLDER / f"{name}.py"), *sys.argv[2:]]
        runpy.run_path(sys.argv[0], run_name="__main__")
        return
    print(__doc__ + "\n\n" + "\n".join(f"    {name:<18} {line}" for name, line in found.items()))
    if name and name not in ("-h", "--help"):
        sys.exit(f"\nthere is no benchmark {name!r}")


if __name__ == "__main__":
    main()
