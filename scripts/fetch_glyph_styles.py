"""Fetch the second drawing style of the training scenes, `fluent-3d`, into build/glyphs.

The pictures are Microsoft's Fluent Emoji (MIT licence), as the npm package below holds them. npm has to be installed.
"""

import argparse
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from ssp_sam.data.glyphs import PICTURE_FOLDERS, characters, picture_file_name

PACKAGE = "@lobehub/fluent-emoji-3d@1.1.0"
SHA256 = "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58"
FOLDER_NAME = "fluent-3d"


class FetchError(Exception):
    """The package could not be had, or is not what it should be."""


def pack(folder: Path) -> Path:
    """Let npm download the package into a folder; return the archive, which is the very one that was chosen."""
    command = ["npm", "pack", "--silent", "--pack-destination", str(folder), PACKAGE]
    try:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    except FileNotFoundError:
        raise FetchError("npm is not installed; the pictures come from its registry") from None
    except subprocess.CalledProcessError as error:
        raise FetchError(f"{' '.join(command)} failed with exit code {error.returncode}") from error
    [archive] = folder.glob("*.tgz")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != SHA256:
        raise FetchError(f"{PACKAGE} has SHA-256 {digest}; expected {SHA256}")
    return archive


def extract(archive: Path, destination: Path) -> int:
    """Write the pictures of all nouns to a folder; return how many."""
    wanted = {picture_file_name(character) for character in characters().values()}
    destination.mkdir(parents=True, exist_ok=True)
    written = set()
    with tarfile.open(archive) as members:
        for member in members:
            # Some names in the archive keep the variation selector.
            name = Path(member.name).name.replace("-fe0f", "")
            content = members.extractfile(member)
            if name in wanted and content is not None:
                (destination / name).write_bytes(content.read())
                written.add(name)
    if written != wanted:
        raise FetchError(f"{PACKAGE} lacks {', '.join(sorted(wanted - written))}")
    return len(written)


def main() -> int:
    """Run the command line; return 0, or 1 when the pictures could not be fetched."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=PICTURE_FOLDERS[0], help="folder of styles (default: %(default)s)")
    arguments = parser.parse_args()
    destination = arguments.out / FOLDER_NAME
    try:
        with tempfile.TemporaryDirectory() as folder:
            count = extract(pack(Path(folder)), destination)
    except FetchError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{count} pictures in {destination}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
