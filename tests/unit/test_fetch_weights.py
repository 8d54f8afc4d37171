"""Against a server on loopback that answers as the hub does: a listing, and files at a revision in ranges."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest
from huggingface_hub import constants

SCRIPTS = Path(__file__).parents[2] / "scripts"
CHECKPOINT = "output/grefcoco/336/checkpoint_best_miou.pth"
CHECKPOINT_REPO = "wayneicloud/SSP-SAM"
CLIP_REPO = "openai/clip-vit-large-patch14-336"
REVISION = "0123456789abcdef0123456789abcdef01234567"

Run = Callable[..., tuple[int, str, str]]


@dataclass
class FakeHub:
    """What the server has and what it was asked for. cut_after: the next file answer breaks off after so many bytes."""

    endpoint: str = ""
    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    cut_after: int | None = None
    lies: dict[str, bytes] = field(default_factory=dict)
    ranges: list[tuple[str, str | None]] = field(default_factory=list)

    def listing(self, repo: str) -> dict[str, object]:
        siblings = [
            {
                "rfilename": name,
                "size": len(content),
                "blobId": hashlib.sha1(content).hexdigest(),
                **(
                    {}
                    if name.endswith(".json")
                    else {"lfs": {"sha256": sha256(content), "size": len(content), "pointerSize": 134}}
                ),
            }
            for name, content in self.repos[repo].items()
        ]
        return {"id": repo, "modelId": repo, "sha": REVISION, "tags": [], "siblings": siblings}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def handler_of(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            if path.startswith("/api/models/") and path.removeprefix("/api/models/") in hub.repos:
                content = json.dumps(hub.listing(path.removeprefix("/api/models/"))).encode()
                self.answer(200, content, {"content-type": "application/json"})
                return
            match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([0-9a-f]+)/(.+)", path)
            if not match or match[2] != REVISION or match[3] not in hub.repos.get(match[1], {}):
                self.answer(404, b"", {"x-error-code": "EntryNotFound"})
                return
            if not match[3].endswith(".json") and query != "cdn":  # large files lie elsewhere
                self.answer(302, b"", {"location": f"{path}?cdn"})
                return
            whole = hub.lies.get(match[3], hub.repos[match[1]][match[3]])
            asked = self.headers["range"]
            hub.ranges.append((match[3], asked))
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked else 0  # type: ignore[index]
            headers = {"etag": f'"{sha256(whole)}"', "x-repo-commit": REVISION, "accept-ranges": "bytes"}
            if asked:
                headers["content-range"] = f"bytes {start}-{len(whole) - 1}/{len(whole)}"
            self.answer(206 if asked else 200, whole[start:], headers)

        def answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            cut, hub.cut_after = (hub.cut_after, None) if "etag" in headers else (None, hub.cut_after)
            self.wfile.write(content[:cut])

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    fake = FakeHub()
    fake.repos = {
        CHECKPOINT_REPO: {"README.md": b"hello", CHECKPOINT: bytes(range(256)) * 40, "output/other/336/a.pth": b"a"},
        CLIP_REPO: {"config.json": b"{}", "pytorch_model.bin": b"weights of CLIP" * 99, "tf_model.h5": b"no"},
    }
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(fake))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    fake.endpoint = f"http://127.0.0.1:{server.server_port}"
    yield fake
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def run(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line on `tmp_path`; return exit code, stdout, stderr."""
    monkeypatch.syspath_prepend(SCRIPTS)
    script: ModuleType = importlib.import_module("fetch_weights")
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)  # small files in several chunks

    def call(*arguments: str, endpoint: str | None = None) -> tuple[int, str, str]:
        line = ["fetch_weights", "--preset", "l336", "--dir", str(tmp_path), "--endpoint", endpoint or hub.endpoint]
        monkeypatch.setattr("sys.argv", [*line, *arguments])
        code = script.main()
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def checkpoint_of(folder: Path) -> Path:
    return folder / CHECKPOINT_REPO / CHECKPOINT


def test_the_first_run_downloads_and_locks_and_the_second_needs_no_hub(hub: FakeHub, run: Run, tmp_path: Path) -> None:
    code, out, _ = run()
    assert code == 0
    assert out.splitlines() == [str(checkpoint_of(tmp_path)), str(tmp_path / CLIP_REPO)]
    assert checkpoint_of(tmp_path).read_bytes() == hub.repos[CHECKPOINT_REPO][CHECKPOINT]
    assert {path.name for path in (tmp_path / CLIP_REPO).iterdir()} == {"config.json", "pytorch_model.bin"}
    locked = {entry["name"]: entry for entry in json.loads((tmp_path / "weights.lock.json").read_text())}
    assert {name: entry["sha256"] for name, entry in locked.items()} == {
        CHECKPOINT: sha256(hub.repos[CHECKPOINT_REPO][CHECKPOINT]),
        "config.json": sha256(b"{}"),
        "pytorch_model.bin": sha256(hub.repos[CLIP_REPO]["pytorch_model.bin"]),
    }
    assert all(entry["revision"] == REVISION for entry in locked.values())

    unreachable = closed_endpoint()
    assert run(endpoint=unreachable)[:2] == (0, out)
    assert run("--offline", endpoint=unreachable)[:2] == (0, out)
    assert len(hub.ranges) == 3


def test_safetensors_are_preferred(hub: FakeHub, run: Run, tmp_path: Path) -> None:
    hub.repos[CLIP_REPO]["model.safetensors"] = b"safe"
    assert run()[0] == 0
    assert {path.name for path in (tmp_path / CLIP_REPO).iterdir()} == {"config.json", "model.safetensors"}


def test_a_connection_that_breaks_is_taken_up_where_it_broke(hub: FakeHub, run: Run, tmp_path: Path) -> None:
    hub.cut_after = 5000
    assert run()[0] == 0
    assert checkpoint_of(tmp_path).read_bytes() == hub.repos[CHECKPOINT_REPO][CHECKPOINT]
    asked = [value for name, value in hub.ranges if name == CHECKPOINT]
    assert asked[0] is None
    assert asked[1] is not None and asked[1] != "bytes=0-"


def test_a_run_that_was_killed_is_taken_up_by_the_next(hub: FakeHub, run: Run, tmp_path: Path) -> None:
    part = checkpoint_of(tmp_path).with_name(f"{Path(CHECKPOINT).name}.{REVISION[:12]}.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(hub.repos[CHECKPOINT_REPO][CHECKPOINT][:7000])
    assert run()[0] == 0
    assert (CHECKPOINT, "bytes=7000-") in hub.ranges
    assert checkpoint_of(tmp_path).read_bytes() == hub.repos[CHECKPOINT_REPO][CHECKPOINT]
    assert not part.exists()


def test_a_download_with_another_digest_is_thrown_away(hub: FakeHub, run: Run, tmp_path: Path) -> None:
    right = hub.repos[CHECKPOINT_REPO][CHECKPOINT]
    hub.lies[CHECKPOINT] = b"X" + right[1:]
    code, out, err = run()
    assert (code, out) == (1, "")
    assert Path(CHECKPOINT).name in err and sha256(right) in err and sha256(hub.lies[CHECKPOINT]) in err
    assert not checkpoint_of(tmp_path).exists()

    hub.lies.clear()
    assert run()[0] == 0
    assert checkpoint_of(tmp_path).read_bytes() == right


@pytest.mark.parametrize("offline", [(), ("--offline",)])
@pytest.mark.parametrize("name", ["config.json", "pytorch_model.bin"])
def test_a_file_that_changed_on_disk_is_named_with_both_digests(
    run: Run, tmp_path: Path, name: str, offline: tuple[str, ...]
) -> None:
    run()
    path = tmp_path / CLIP_REPO / name
    before = path.read_bytes()
    path.write_bytes(before + b" ")
    code, _, err = run(*offline)
    assert code == 1
    assert str(path) in err and sha256(before) in err and sha256(before + b" ") in err


def test_offline_says_what_is_missing(run: Run, tmp_path: Path) -> None:
    code, _, err = run("--offline")
    assert code == 1 and "weights.lock.json has no output/grefcoco/336/*.pth" in err
    run()
    checkpoint_of(tmp_path).unlink()
    code, _, err = run("--offline")
    assert code == 1 and f"{checkpoint_of(tmp_path)} is missing" in err


def test_offline_writes_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run()[0] == 0

    def refused(path: Path, *_: object, **__: object) -> int:
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "write_text", refused)
    monkeypatch.setattr(Path, "mkdir", refused)
    assert run("--offline")[0] == 0


def test_the_checkpoint_is_never_guessed(hub: FakeHub, run: Run, tmp_path: Path) -> None:
    code, _, err = run("--checkpoint-file", "*.pth")
    assert code == 1 and CHECKPOINT in err and "output/other/336/a.pth" in err
    code, _, err = run("--checkpoint-file", "best.pth")
    assert code == 1 and f"{CHECKPOINT_REPO} has no best.pth" in err and CHECKPOINT in err
    assert not hub.ranges
    code, out, _ = run("--checkpoint-file", "output/other/*")
    assert code == 0 and out.splitlines()[0].endswith("output/other/336/a.pth")


def test_the_listing_shows_sizes_and_digests_and_fetches_nothing(hub: FakeHub, run: Run, tmp_path: Path) -> None:
    code, out, _ = run("--list")
    assert code == 0
    [line] = [line for line in out.splitlines() if line.endswith(CHECKPOINT)]
    assert "10,240" in line and sha256(hub.repos[CHECKPOINT_REPO][CHECKPOINT]) in line
    assert not hub.ranges and not list(tmp_path.iterdir())


def test_an_endpoint_that_does_not_answer_is_named(run: Run) -> None:
    endpoint = closed_endpoint()
    code, _, err = run(endpoint=endpoint)
    assert code == 1
    assert err.startswith(f"error: cannot list {CHECKPOINT_REPO} at {endpoint}")


def test_a_damaged_lock_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "weights.lock.json").write_text('[{"repo": 1')
    code, _, err = run()
    assert code == 1 and "weights.lock.json is damaged" in err


def closed_endpoint() -> str:
    """Return an address on loopback where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"
