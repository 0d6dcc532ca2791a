"""An allocator that suits XLA on CPU, for the commands.

A compiled program allocates its buffers anew each time it runs. The C library gives large ones back to the system when
they are freed, so that every page is asked for again at its first touch, at every step; tcmalloc keeps them. It has to
be there before the process starts, which is why a command starts itself anew.
"""

from __future__ import annotations

import ctypes.util
import os
import sys

ALLOCATORS = ("tcmalloc", "jemalloc", "mimalloc")
MISSING = "tcmalloc is not installed (on Debian: libtcmalloc-minimal4); with it, training on a CPU is often faster"


def restart_with_tcmalloc() -> bool:
    """Start this command anew with tcmalloc, if it is installed; does not return then.

    Returns whether such an allocator is in use already: one that the user preloads is left alone.
    """
    preloaded = os.environ.get("LD_PRELOAD", "")
    if any(name in preloaded for name in ALLOCATORS):
        return True
    found = ctypes.util.find_library("tcmalloc_minimal") if sys.platform == "linux" else None
    if found is None:
        return False
    environment = {**os.environ, "LD_PRELOAD": f"{preloaded} {found}".strip()}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
