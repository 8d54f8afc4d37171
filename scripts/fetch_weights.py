"""Fetch the published weights of a preset: the authors' checkpoint and CLIP, from the Hugging Face hub.

    python scripts/fetch_weights.py --preset l336 --list
    python scripts/fetch_weights.py --preset l336
    python scripts/fetch_weights.py --preset l336 --offline

The paths of the checkpoint and of CLIP's folder go to stdout: --checkpoint and --clip of build_repository.py. The first
run writes `weights.lock.json` beside the files: revision and SHA-256 of each. Later runs hold to it: they check what is
there, download what is missing at that revision, and stop at the first file that differs. Delete the lock to move on to
a newer revision. An interrupted download goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import HTTPError
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers

from ssp_sam.digest import sha256_of

CHECKPOINT_REPO = "wayneicloud/SSP-SAM"
# The authors' folders are output/<training set>/<CLIP's image side>: the gRefCOCO checkpoints know "no target". A
# pattern has to match exactly one file of the listing, so a renamed file is an error and never another file.
CHECKPOINT_PATTERNS = {"b224": "output/grefcoco/224/*.pth", "l336": "output/grefcoco/336/*.pth"}
CLIP_REPOS = {"b224": "openai/clip-vit-base-patch16", "l336": "openai/clip-vit-large-patch14-336"}
CLIP_CONFIG = "config.json"
CLIP_WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # the first that the listing has
LOCK = "weights.lock.json"


class FetchError(Exception):
    """The weights could not be had, or are not what they should be."""


@dataclass(frozen=True)
class WeightFile:
    """A file of a hub repository at one revision. sha256: None as long as nobody has said or computed it."""

    repo: str
    revision: str
    name: str
    size_bytes: int
    sha256: str | None

    @property
    def path(self) -> str:
        """Where it lies, relative to the folder of the weights."""
        return f"{self.repo}/{self.name}"


class Lock:
    """Which files belong to a folder of weights, by repository and name; every change is written at once."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / LOCK
        try:
            entries = json.loads(self.file.read_text(encoding="utf-8")) if self.file.is_file() else []
            self._files = {file.path: file for file in (WeightFile(**entry) for entry in entries)}
        except (ValueError, TypeError) as error:
            raise FetchError(f"{self.file} is damaged: {error}") from error

    def files(self, repo: str) -> dict[str, WeightFile]:
        """Return the files of a repository by name."""
        return {file.name: file for file in self._files.values() if file.repo == repo}

    def put(self, file: WeightFile) -> None:
        """Remember a file, in place of what was known of it."""
        if self._files.get(file.path) == file:
            return  # nothing to write, perhaps where nothing can be written
        self._files[file.path] = file
        self.file.parent.mkdir(parents=True, exist_ok=True)
        entries = [asdict(self._files[path]) for path in sorted(self._files)]
        partial = self.file.with_name(f"{self.file.name}.partial")
        partial.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
        partial.replace(self.file)


class Hub:
    """The Hugging Face hub, or what answers at another endpoint like it."""

    def __init__(self, endpoint: str | None) -> None:
        self._api = HfApi(endpoint=endpoint)

    def files(self, repo: str) -> dict[str, WeightFile]:
        """Return the files at the newest revision of a repository by name."""
        try:
            info = self._api.model_info(repo, files_metadata=True)
        except (OSError, HTTPError) as error:
            raise FetchError(f"cannot list {repo} at {self._api.endpoint}: {error}") from error
        return {
            file.rfilename: WeightFile(
                repo, info.sha, file.rfilename, file.size, file.lfs.sha256 if file.lfs is not None else None
            )
            for file in info.siblings
        }

    def download(self, file: WeightFile, destination: Path) -> None:
        """Append to `destination` what it lacks of a file."""
        url = hf_hub_url(file.repo, file.name, revision=file.revision, endpoint=self._api.endpoint)
        headers = {**build_hf_headers(), "accept-encoding": "identity"}  # ranges are of the file's own bytes
        destination.parent.mkdir(parents=True, exist_ok=True)
        try:
            with destination.open("ab") as target:
                there = target.tell()
                http_get(url, target, resume_size=there, headers=headers, expected_size=file.size_bytes)
        except (OSError, HTTPError) as error:
            raise FetchError(f"cannot download {url}: {error}") from error


def choose_checkpoint(names: Iterable[str], pattern: str) -> list[str]:
    """Return the one name that matches, or none; raises FetchError if there are several."""
    matches = sorted(name for name in names if fnmatchcase(name, pattern))
    if len(matches) > 1:
        raise FetchError(f"{pattern!r} matches several files: {', '.join(matches)}; choose with --checkpoint-file")
    return matches


def choose_clip(names: Iterable[str], _: str) -> list[str]:
    """Return the names of CLIP's configuration and weights, or none if either is missing."""
    names = set(names)
    weights = [name for name in CLIP_WEIGHTS if name in names]
    return [CLIP_CONFIG, weights[0]] if weights and CLIP_CONFIG in names else []


def fetch(folder: Path, preset: str, pattern: str, hub: Hub | None) -> tuple[Path, Path]:
    """Return the checkpoint and CLIP's folder, both complete and verified; without a hub nothing is downloaded."""
    lock = Lock(folder)
    paths = []
    for repo, choose in ((CHECKPOINT_REPO, choose_checkpoint), (CLIP_REPOS[preset], choose_clip)):
        files = lock.files(repo)
        names = choose(files, pattern)
        if not names and hub is not None:
            files = {**hub.files(repo), **files}
            names = choose(files, pattern)
        if not names:
            where = repo if hub is not None else lock.file
            wanted = pattern if repo == CHECKPOINT_REPO else f"{CLIP_CONFIG} and {' or '.join(CLIP_WEIGHTS)}"
            raise FetchError(f"{where} has no {wanted}; what it has: {', '.join(sorted(files)) or 'nothing'}")
        for name in names:
            lock.put(files[name])
            lock.put(ensure(folder, files[name], hub))
        paths.append(folder / files[names[0]].path)
    checkpoint, clip_config = paths
    return checkpoint, clip_config.parent


def ensure(folder: Path, file: WeightFile, hub: Hub | None) -> WeightFile:
    """Verify a file, after downloading it if it is missing; return it with its SHA-256."""
    path = folder / file.path
    if path.is_file():
        return verified(path, file, "delete it to download it again")
    if hub is None:
        raise FetchError(f"{path} is missing; run without --offline to download it")
    print(f"{file.repo}: {file.name}", file=sys.stderr)
    part = path.with_name(f"{path.name}.{file.revision[:12]}.part")
    hub.download(file, part)
    try:
        result = verified(part, file, "the download is thrown away")
    except FetchError:
        part.unlink()  # to go on from it would never give the right file
        raise
    part.replace(path)
    return result


def verified(path: Path, file: WeightFile, advice: str) -> WeightFile:
    """Return `file` with the SHA-256 of `path`; raises FetchError if another one was expected."""
    actual = sha256_of(path)
    if file.sha256 not in (None, actual):
        raise FetchError(f"{path} has SHA-256 {actual}; expected {file.sha256}: {advice}")
    return replace(file, sha256=actual)


def main() -> int:
    """Return the exit code: 0 done, 1 weights could not be had or differ; argparse itself exits with 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=CLIP_REPOS, required=True, help="the variant of the model")
    parser.add_argument("--dir", type=Path, metavar="DIR", help="where the files go (default: weights/PRESET)")
    parser.add_argument(
        "--checkpoint-file",
        metavar="PATTERN",
        help=f"which file of {CHECKPOINT_REPO}; has to match exactly one "
        f"(default: {', '.join(f'{pattern} for {preset}' for preset, pattern in CHECKPOINT_PATTERNS.items())})",
    )
    parser.add_argument("--endpoint", metavar="URL", help="a mirror of the hub (default: huggingface_hub's own)")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--list", action="store_true", help="list size, SHA-256 and name of what could be fetched")
    mode.add_argument("--offline", action="store_true", help="only verify what is there")
    options = parser.parse_args()
    folder = options.dir or Path("weights") / options.preset
    try:
        if options.list:
            for repo in (CHECKPOINT_REPO, CLIP_REPOS[options.preset]):
                for file in Hub(options.endpoint).files(repo).values():
                    print(f"{file.size_bytes:>14,} {file.sha256 or '-':64} {file.path}")
        else:
            hub = None if options.offline else Hub(options.endpoint)
            pattern = options.checkpoint_file or CHECKPOINT_PATTERNS[options.preset]
            for path in fetch(folder, options.preset, pattern, hub):
                print(path)
    except (FetchError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
