"""The tensors of a TorchScript archive, read without running anything that the archive holds.

`torch.jit.load` compiles the archive's code, and PyTorch advises to treat that like running a program of unknown
origin; `torch.load(weights_only=True)` refuses such archives. The tensors need neither: they lie uncompressed in the
zip file, and `data.pkl` says which attribute of which module each of them is.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ssp_sam.errors import InvalidArgumentError

_ZIP_LOCAL_HEADER_BYTES = 30


class _Module:
    """Stands for an object of any class of the archive: attributes without behaviour."""


def is_torchscript(path: str | Path) -> bool:
    """Tell whether a file is a TorchScript archive (and not what `torch.save` writes)."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def load_torchscript_tensors(path: str | Path) -> dict[str, Tensor]:
    """Return every tensor of a TorchScript archive by its dotted name; they are mapped from the file, not read.

    Besides parameters and buffers these are the tensors that modules hold as plain attributes: only the archive's code
    tells them apart. Raises InvalidArgumentError for a damaged file and for one whose pickle asks for more than tensors
    and plain values.
    """
    try:
        with zipfile.ZipFile(path) as archive, Path(path).open("rb") as file:
            [pickle_name] = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
            mapped = torch.from_file(str(path), shared=False, size=Path(path).stat().st_size, dtype=torch.uint8)

            def load_storage(key: str, dtype: torch.dtype) -> Tensor:
                member = archive.getinfo(pickle_name.replace("data.pkl", f"data/{key}"))
                start = _content_start(file, member)
                return mapped[start : start + member.file_size].view(dtype)

            with archive.open(pickle_name) as content:
                root = _Unpickler(content, load_storage).load()
        if not isinstance(root, _Module):
            raise pickle.UnpicklingError("it holds no module")
        return dict(_tensors(root, ""))
    except OSError:
        raise
    except Exception as error:  # a damaged pickle may raise anything: pickle makes no promise
        raise InvalidArgumentError(f"{path} is not a TorchScript archive whose tensors can be read: {error}") from error


def _content_start(file: BinaryIO, member: zipfile.ZipInfo) -> int:
    if member.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{member.filename} is compressed")
    file.seek(member.header_offset)
    name_bytes, extra_bytes = struct.unpack_from("<HH", file.read(_ZIP_LOCAL_HEADER_BYTES), 26)
    return member.header_offset + _ZIP_LOCAL_HEADER_BYTES + int(name_bytes) + int(extra_bytes)


def _tensors(module: _Module, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(value, _Module):
            yield from _tensors(value, f"{prefix}{name}.")


def _rebuild_tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if min(offset, *stride, 0) < 0 or last >= len(storage):
        raise ValueError("a tensor reaches beyond its storage")
    return storage.as_strided(size, stride, storage.storage_offset() + offset)


def _first(value: Any, *_: Any) -> Any:
    return value


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): dict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    # Plain values that TorchScript keeps with their type: nothing here needs it.
    **{("torch.jit._pickle", f"build_{kind}list"): _first for kind in ("int", "double", "bool", "tensor")},
    ("torch.jit._pickle", "restore_type_tag"): _first,
    **{
        ("torch", f"{name}Storage"): dtype
        for name, dtype in {
            "Half": torch.float16,
            "BFloat16": torch.bfloat16,
            "Float": torch.float32,
            "Double": torch.float64,
            "Bool": torch.bool,
            "Byte": torch.uint8,
            "Int": torch.int32,
            "Long": torch.int64,
        }.items()
    },
}


class _Unpickler(pickle.Unpickler):
    """Knows a handful of names, none of which does more than make a value."""

    def __init__(self, file: Any, load_storage: Callable[[str, torch.dtype], Tensor]) -> None:
        super().__init__(file)
        self._load_storage = load_storage

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return _Module
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not allowed") from None

    def persistent_load(self, pid: Any) -> Tensor:
        kind, dtype, key, _, _ = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"it asks for {kind!r}, which is not allowed")
        return self._load_storage(key, dtype)
