from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
from fake_segment_server import HEIGHT, WIDTH, FakeTriton, expected_mask, triton_error
from PIL import Image

from ssp_sam.client import SegmentationClient
from ssp_sam.client.cli import main, mask_name
from ssp_sam.results import decode_rle

SCRIPT = Path(__file__).parents[3] / "client" / "segment.py"
FOUND, MISSING = "the left dog", "no dog"


@pytest.fixture
def url(server: FakeTriton) -> Iterator[str]:
    with server.listening() as url:
        yield url


@pytest.fixture
def image(tmp_path: Path, png: bytes) -> str:
    path = tmp_path / "image.png"
    path.write_bytes(png)
    return str(path)


def test_table(url: str, image: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([image, "--phrase", FOUND, "--phrase", MISSING, "--url", url]) == 0
    output = capsys.readouterr()
    heading, found, missing = output.out.splitlines()
    assert heading.split()[:3] == ["#", "phrase", "score"]
    assert found.split() == ["0", *FOUND.split(), "0.900", "0.0", "0.0", "12.0", "30.0", "360"]
    assert "nothing found" in missing
    assert not output.err


def test_json(url: str, image: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([image, "--phrase", FOUND, "--phrase", MISSING, "--url", url, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document.keys() == {"image", "answers"}
    assert document["image"] == image
    assert [answer["phrase"] for answer in document["answers"]] == [FOUND, MISSING]
    for answer in document["answers"]:
        assert answer.keys() == {"phrase", "no_target", "score", "box_xyxy_px", "area_px", "mask_rle"}
        mask = decode_rle(answer["mask_rle"]["counts"].encode(), *answer["mask_rle"]["size"])
        assert np.array_equal(mask, expected_mask(answer["phrase"]))


def test_options_reach_the_server(server: FakeTriton, url: str, image: str) -> None:
    options = ["--model", "segment_ensemble", "--mask-threshold", "1.5", "--timeout-s", "7"]
    assert main([image, "--phrase", FOUND, "--url", url, *options]) == 0
    (request,) = server.requests
    assert request.model == "segment_ensemble"
    assert request.inputs["mask_threshold"] == 1.5
    assert 6_000_000 < request.timeout_us <= 7_000_000


def test_pictures(url: str, image: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "results"
    assert main([image, "--phrase", FOUND, "--phrase", MISSING, "--url", url, "--out", str(out)]) == 0
    assert capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == [
        "answers.json",
        "mask_0_the_left_dog.png",
        "mask_1_no_dog.png",
        "overlay.png",
    ]
    assert Image.open(out / "overlay.png").size == (WIDTH, HEIGHT)
    mask = np.asarray(Image.open(out / "mask_0_the_left_dog.png"))
    assert set(np.unique(mask)) == {0, 255}
    assert np.array_equal(mask > 0, expected_mask(FOUND))
    answers = json.loads((out / "answers.json").read_text())
    assert [answer["phrase"] for answer in answers] == [FOUND, MISSING]
    assert all((out / answer["mask_file"]).exists() for answer in answers)


def test_answers_are_printed_though_the_pictures_cannot_be_written(
    url: str, image: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "overlay.png").mkdir()
    assert main([image, "--phrase", FOUND, "--url", url, "--out", str(tmp_path)]) == 1
    output = capsys.readouterr()
    assert FOUND in output.out
    assert output.err.startswith("error: ") and "overlay.png" in output.err


def test_interruption_ends_without_a_traceback(
    url: str, image: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(SegmentationClient, "segment", interrupted)
    assert main([image, "--phrase", FOUND, "--url", url]) == 130
    assert capsys.readouterr() == ("", "stopped\n")


def test_installed_command_is_this_one() -> None:
    declared = (SCRIPT.parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    (target,) = re.findall(r'^ssp-sam-segment = "(.*)"$', declared, re.MULTILINE)
    assert EntryPoint("ssp-sam-segment", target, "console_scripts").load() is main


def test_overlay_is_upright(url: str, tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (HEIGHT, WIDTH)).save(tmp_path / "image.jpg", exif=turned)  # lies on its side
    assert main([str(tmp_path / "image.jpg"), "--phrase", FOUND, "--url", url, "--out", str(tmp_path)]) == 0
    assert Image.open(tmp_path / "overlay.png").size == (WIDTH, HEIGHT)


def test_failures(server: FakeTriton, url: str, image: str, capsys: pytest.CaptureFixture[str]) -> None:
    server.failures = [triton_error("[UNAVAILABLE] busy"), triton_error("[INVALID_ARGUMENT] too long a phrase")]
    arguments = [image, "--phrase", FOUND, "--url", url]
    assert main(arguments) == 1
    assert main(arguments) == 2
    assert main([image, "--phrase", FOUND, "--url", "localhost:1"]) == 1
    assert main([*arguments, "--out", image]) == 1  # a file is in the way
    output = capsys.readouterr()
    assert not output.out
    lines = output.err.splitlines()
    assert lines[:2] == ["error: busy", "error: too long a phrase"]
    assert "localhost:1" in lines[2]


def test_wrong_usage(image: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    no_image = tmp_path / "text.png"
    no_image.write_text("text")
    phrase = ["--phrase", FOUND]
    assert main([str(tmp_path / "none.png"), *phrase]) == 2
    assert main([str(tmp_path), *phrase]) == 2
    assert main([str(no_image), *phrase]) == 2
    assert "not an image" in capsys.readouterr().err.splitlines()[-1]
    assert main([image, *phrase, "--timeout-s", "0"]) == 2
    assert main([image, *phrase, "--url", "http://localhost:8001"]) == 2
    for arguments in ([image], [*phrase], [image, *phrase, "--timeout-s", "soon"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2


def test_script_passes_the_exit_code_on(image: str, tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), image, "--phrase", FOUND, "--url", "localhost:1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "localhost:1" in done.stderr


@pytest.mark.parametrize(
    ("phrase", "name"),
    [
        ("The left dog!", "mask_3_the_left_dog.png"),
        ("../../etc/passwd", "mask_3_etc_passwd.png"),
        ("?!", "mask_3.png"),
        ("左の犬", "mask_3_左の犬.png"),
        ("x" * 1000, f"mask_3_{'x' * 40}.png"),
    ],
)
def test_mask_name(phrase: str, name: str) -> None:
    assert mask_name(3, phrase) == name
