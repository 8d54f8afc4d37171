"""Imports that bring no more than what the model is made of."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

_PACKAGE = "segment_anything"


def import_segment_anything_modeling() -> None:
    """Import `segment_anything.modeling`, and not the rest of that package.

    `import segment_anything` brings its mask generator and with it torchvision: two seconds and 150 MB in every process
    that serves a part of SAM. The parts that the model is made of need neither.
    """
    if _PACKAGE in sys.modules:  # somebody has imported all of it
        return
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None:
        raise ModuleNotFoundError(f"no module named {_PACKAGE!r}; `pip install ssp-sam[server]` brings it")
    stand_in = ModuleType(_PACKAGE)
    stand_in.__path__ = list(spec.submodule_search_locations or ())
    sys.modules[_PACKAGE] = stand_in
    try:
        importlib.import_module(f"{_PACKAGE}.modeling")
    finally:
        del sys.modules[_PACKAGE]  # whoever imports the package later gets all of it, with the same classes
