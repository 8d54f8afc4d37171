"""Reads the pickles in which referring expressions are published, without letting them run anything."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

from ssp_sam.evaluation.datasets.samples import DatasetError, read_bytes

# Containers, texts and numbers: what lists of references are made of. `unicode`, `long` and `__builtin__` are Python
# 2's names.
_BUILTINS: dict[str, type] = {
    **{kind.__name__: kind for kind in (bool, bytes, complex, dict, float, frozenset, int, list, set, str, tuple)},
    "unicode": str,
    "long": int,
}


def load_plain_pickle(path: Path) -> tuple[Any, bytes]:
    """Return what a pickle of plain values holds, and its bytes; texts of Python 2 are read as Latin-1.

    Raises DatasetError for a pickle that is broken or that wants anything but containers, texts and numbers.
    """
    data = read_bytes(path)
    try:
        return _PlainUnpickler(io.BytesIO(data), encoding="latin1").load(), data
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from None
    except Exception as error:  # a broken pickle may make the unpickler raise anything
        raise DatasetError(f"{path} is a broken pickle: {type(error).__name__}: {error}") from error


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return the type or function of that name that a pickle may use."""
        if module in {"builtins", "__builtin__"} and name in _BUILTINS:
            return _BUILTINS[name]
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("_codecs", "encode"):  # so Python 3 writes bytes in protocols up to 2
            return _latin1_bytes
        raise DatasetError(f"the pickle asks for {module}.{name}, which is refused: only plain values are read")


def _latin1_bytes(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise DatasetError(f"the pickle asks for bytes in {encoding!r}; only 'latin1' is read")
    return text.encode("latin1")
