"""Networks converted for OpenVINO, kept on disk: to convert takes seconds and PyTorch, to read them neither."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ssp_sam.config import Preset
from ssp_sam.digest import sha256_of
from ssp_sam.errors import SegmentationError, error_from_message
from ssp_sam.serving import contract
from ssp_sam.serving.server_process import describe_exit

CACHE_VARIABLE = "SSP_SAM_CACHE"
"""The environment variable that says where converted networks are kept; they may be deleted at any time."""

_UNUSED_S = 30 * 24 * 3600.0
"""What nobody has read for so long is deleted when something new is kept."""

_PARTS = {contract.SSP_PROMPT_GENERATOR: ("compare", "write"), contract.MASK_DECODER: ("see", "decode")}
_WHOLE = ("whole",)
# What decides how a network is converted, beside its weights.
_PACKAGES = ("openvino", "segment-anything", "torch")
_SOURCES = Path(__file__).resolve().parents[1]

# What lies here beside that is somebody else's.
_IS_OURS = re.compile(rf"\.partial-.*|({'|'.join(contract.NETWORK_STAGES)})-[0-9a-f]{{20}}")

# What the conversion itself tells, with the error's code in front; warnings may come before it.
_ERROR = re.compile(r"^\[[A-Z_]+\] .*", re.MULTILINE | re.DOTALL)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """What a network is converted from: a stage of a preset, and the safetensors file of its parameters."""

    stage: str
    preset: Preset
    weights: Path

    @property
    def architecture(self) -> dict[str, Any]:
        """What of the preset decides how the network is converted; how it is served does not."""
        return {name: asdict(self.preset)[name] for name in ("clip", "sam", "ssp", "text_positions")}


def cache_folder() -> Path:
    """Return where converted networks are kept, an absolute path."""
    own = os.environ.get(CACHE_VARIABLE)
    folder = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ssp-sam"
    return folder.resolve()  # as Python 3.12's mkdtemp has it


def convert_together(sources: Iterable[Source]) -> None:
    """Convert those that are not kept yet, all in one process: importing PyTorch takes as long as converting.

    Raises what converting raises. Where nothing can be kept, nothing is done.
    """
    missing = [(source, kept) for source in sources if not _is_complete(source, kept := _kept_in(source))]
    if not missing:
        return
    with _new_folder(cache_folder()) as partial:
        if partial.parent == cache_folder():
            _convert(missing, partial)


@contextlib.contextmanager
def converted_files(source: Source) -> Iterator[dict[str, Path]]:
    """Lend the file of each part of a network, converting it first if it is not kept.

    Without a place to keep it, it is gone afterwards, and the next process converts it again.
    """
    kept = _kept_in(source)
    if _is_complete(source, kept):
        with contextlib.suppress(OSError):  # a cache that others may only read
            os.utime(kept)
        yield _files(source, kept)
        return
    with _new_folder(cache_folder()) as partial:
        _convert([(source, kept)], partial)
        # Always from files: what is read from them rounds a few numbers otherwise than what was written to them.
        yield _files(source, kept if _is_complete(source, kept) else partial / source.stage)


def _is_complete(source: Source, folder: Path) -> bool:
    return all(
        part.is_file() and part.stat().st_size > 0
        for file in _files(source, folder).values()
        for part in (file, file.with_suffix(".bin"))
    )


def _files(source: Source, folder: Path) -> dict[str, Path]:
    return {name: folder / f"{name}.xml" for name in _PARTS.get(source.stage, _WHOLE)}


def _kept_in(source: Source) -> Path:
    """Return the folder that is for this network alone: its name depends on all that the network depends on."""
    code = [*sorted((_SOURCES / "modeling").glob("*.py")), _SOURCES / "networks" / "openvino_conversion.py"]
    depends_on = {
        "stage": source.stage,
        "architecture": source.architecture,
        "weights": sha256_of(source.weights),
        "packages": {package: version(package) for package in _PACKAGES},
        "sources": [sha256_of(file) for file in code],
    }
    key = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:20]
    return cache_folder() / f"{source.stage}-{key}"


@contextlib.contextmanager
def _new_folder(cache: Path) -> Iterator[Path]:
    """Lend an empty folder, in the cache if that can be written."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        _forget_unused(cache)
        folder = Path(tempfile.mkdtemp(dir=cache, prefix=".partial-"))
    except OSError as error:
        _log.warning("converted networks are not kept in %s (%s): each start converts them again", cache, error)
        folder = Path(tempfile.mkdtemp())
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _convert(wanted: Sequence[tuple[Source, Path]], folder: Path) -> None:
    """Write each network to `folder / stage`, and from there to where it is kept if `folder` is in the cache.

    In a process of its own, since PyTorch would stay in this one. Raises what converting raises, as far as it is a
    SegmentationError.
    """
    names = ", ".join(source.stage for source, _ in wanted)
    _log.info("Converting for OpenVINO, which is done once: %s", names)
    command = [sys.executable, "-m", "ssp_sam.networks.openvino_conversion"]
    asked = pickle.dumps(
        [(source.stage, source.preset, source.weights.resolve(), folder / source.stage) for source, _ in wanted]
    )
    done = subprocess.run(command, input=asked, stderr=subprocess.PIPE, check=False)
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()
        _log.error("the conversion of %s failed:\n%s", names, said)
        if told := _ERROR.search(said):
            raise error_from_message(told[0])
        raise SegmentationError(f"the conversion of {names} {describe_exit(done.returncode)}; see the log")
    if folder.parent == cache_folder():
        for source, kept in wanted:
            if kept.exists() and not _is_complete(source, kept):  # damaged: there was no power, or no room
                shutil.rmtree(kept, ignore_errors=True)
            with contextlib.suppress(OSError):  # another process was faster
                (folder / source.stage).rename(kept)


def _forget_unused(cache: Path) -> None:
    """Delete what belongs to weights, or versions of packages, that are gone by all appearance."""
    for folder in cache.iterdir():
        if _IS_OURS.fullmatch(folder.name) and folder.is_dir() and time.time() - folder.stat().st_mtime > _UNUSED_S:
            shutil.rmtree(folder, ignore_errors=True)
