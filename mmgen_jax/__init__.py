"""Multimodal generation in JAX: any modalities from any others, four families, one training loop.

The names are in `__init__.pyi`, and what is behind them is imported when it is first used: the command line can start
anew with another allocator, or print its help, before it has waited for JAX.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
