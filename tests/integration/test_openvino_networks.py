"""Networks in OpenVINO against the same in PyTorch."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ssp_sam.config import get_preset
from ssp_sam.errors import InvalidArgumentError, SegmentationError
from ssp_sam.networks import Array, Network, load_network, prepare_networks
from ssp_sam.networks.converted import CACHE_VARIABLE, cache_folder
from ssp_sam.networks.openvino_conversion import example_arguments
from ssp_sam.runtime import Runtime
from ssp_sam.serving.contract import NETWORK_STAGES
from ssp_sam.serving.repository import MANIFEST, weights_path
from ssp_sam.serving.server import ModelRepositoryError, prepare_networks_for_cpu

TINY = get_preset("tiny")
ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = ROOT / "model_repository"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv(CACHE_VARIABLE, str(folder))
        yield folder


def load(stage: str, engine: str, precision: str) -> Network:
    return load_network(stage, TINY, weights_path(REPOSITORY, stage), Runtime(engine, precision), 1)


def arguments(stage: str, count: int) -> list[Array]:
    """Return so many images, or so many phrases of one image, that the network has not been converted with."""
    rng = np.random.default_rng(count)
    given = []
    for example in example_arguments(stage, TINY):
        values = example.numpy()
        if stage.endswith("image_encoder") or len(values) > 1 or values.ndim == 1:  # not what an image has once
            values = np.concatenate([values] * count)[:count]
        if values.dtype == np.float32:
            values = values + 0.1 * rng.standard_normal(values.shape).astype(np.float32)
        given.append(values)
    return given


@pytest.mark.parametrize("stage", NETWORK_STAGES)
def test_it_answers_what_pytorch_answers_for_any_number_of_images_and_phrases(stage: str) -> None:
    theirs, ours = load(stage, "torch", "fp32"), load(stage, "openvino", "fp32")
    for count in (1, 3):
        given = arguments(stage, count)
        for a, b in zip(theirs(*given), ours(*given), strict=True):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            np.testing.assert_allclose(a, b, atol=2e-4 * float(np.abs(a).max()))


@pytest.mark.parametrize("stage", NETWORK_STAGES)
def test_8_bits_answer_nearly_the_same_and_a_row_does_not_depend_on_its_batch(stage: str) -> None:
    plain, small = load(stage, "openvino", "fp32"), load(stage, "openvino", "int8")
    given = arguments(stage, 3)
    for a, b in zip(plain(*given), small(*given), strict=True):
        x, y = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
        assert a.shape == b.shape and b.dtype == np.float32
        assert x @ y / (np.linalg.norm(x) * np.linalg.norm(y)) > 0.999
    first = [values[:1] for values in given]
    for whole, alone in zip(small(*given), small(*first), strict=True):
        np.testing.assert_allclose(whole[: len(alone)], alone, atol=0.002 * float(np.abs(whole).max()))


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_float16_is_computed_as_the_same_numbers_in_float32(engine: str) -> None:
    network = load("mask_decoder", engine, "fp32")
    embedding, *others = arguments("mask_decoder", 2)
    half = embedding.astype(np.float16)
    for _ in range(2):  # each kind after the other
        for a, b in zip(network(half, *others), network(half.astype(np.float32), *others), strict=True):
            assert a.dtype == np.float32
            np.testing.assert_array_equal(a, b)


def test_a_signal_is_survived_when_another_thread_let_go_of_the_network(cache: Path) -> None:
    load("mask_decoder", "openvino", "fp32")
    script = f"""if True:
        import faulthandler, gc, signal, threading
        from ssp_sam.config import get_preset
        from ssp_sam.networks import load_network
        from ssp_sam.runtime import Runtime
        from ssp_sam.serving.repository import weights_path
        faulthandler.enable()  # handlers then have a stack of their own
        seen = []
        signal.signal(signal.SIGCHLD, lambda *_: seen.append("signal"))
        weights = weights_path({str(REPOSITORY)!r}, "mask_decoder")
        held = [load_network("mask_decoder", get_preset("tiny"), weights, Runtime("openvino", "fp32"), 1)]
        thread = threading.Thread(target=lambda: (held.clear(), gc.collect()))
        thread.start()
        thread.join()
        signal.raise_signal(signal.SIGCHLD)
        print(*seen)
    """
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout.strip()) == (0, "signal"), done.stderr


def test_the_second_process_takes_what_the_first_one_kept_and_needs_no_torch(cache: Path) -> None:
    load("ssp_prompt_generator", "openvino", "fp32")
    kept = {path: path.stat().st_mtime_ns for path in cache.rglob("*.xml")}
    assert {path.name for path in kept} >= {"compare.xml", "write.xml"}
    script = f"""if True:
        import sys
        from ssp_sam.config import get_preset
        from ssp_sam.networks import load_network
        from ssp_sam.runtime import Runtime
        from ssp_sam.serving.repository import weights_path
        weights = weights_path({str(REPOSITORY)!r}, "ssp_prompt_generator")
        load_network("ssp_prompt_generator", get_preset("tiny"), weights, Runtime("openvino", "fp32"), 1)
        print("torch" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "False"
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.xml")} == kept


def test_the_process_that_converts_computes_what_later_ones_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    stage = "ssp_prompt_generator"  # whose files hold a few numbers otherwise than the network that was converted
    given = arguments(stage, 2)
    first, later = (load(stage, "openvino", "bf16")(*given) for _ in range(2))
    for a, b in zip(first, later, strict=True):
        np.testing.assert_array_equal(a, b)


def test_weights_that_do_not_fit_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    weights = weights_path(REPOSITORY, "text_encoder")
    with pytest.raises(InvalidArgumentError, match="mask_decoder"):
        load_network("mask_decoder", TINY, weights, Runtime("openvino", "fp32"), 1)
    assert not [*tmp_path.iterdir()], "nothing is left of it"


def test_what_nobody_used_for_long_is_forgotten_when_something_new_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    days = 24 * 3600
    gone, recent, other = f"text_encoder-{20 * 'a'}", f"text_encoder-{20 * 'b'}", "photographs"
    for name, age_s in ((gone, 40 * days), (recent, 20 * days), (other, 40 * days), (".partial-x", 40 * days)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (0, time.time() - age_s))
    load("mask_decoder", "openvino", "fp32")
    left = {folder.name for folder in tmp_path.iterdir() if not folder.name.startswith("mask_decoder-")}
    assert left == {recent, other}
    (kept,) = tmp_path.glob("mask_decoder-*")
    os.utime(kept, (0, time.time() - 40 * days))
    load("mask_decoder", "openvino", "fp32")  # to read it is to use it
    load("text_encoder", "openvino", "fp32")
    assert kept.exists()


def test_a_damaged_network_is_converted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(CACHE_VARIABLE, "cache")  # wherever that is
    load("text_encoder", "openvino", "fp32")
    (kept,) = (tmp_path / "cache").glob("text_encoder-*")
    for damaged in ("whole.bin", "whole.xml"):
        (kept / damaged).write_bytes(b"")
        load("text_encoder", "openvino", "fp32")
        assert (kept / damaged).stat().st_size > 0
    (kept / "whole.bin").unlink()
    load("text_encoder", "openvino", "fp32")
    assert (kept / "whole.bin").exists()


def test_other_weights_are_another_network(cache: Path, tiny_repository: Path) -> None:
    own, other = (weights_path(each, "mask_decoder") for each in (REPOSITORY, tiny_repository))
    given = arguments("mask_decoder", 1)
    answers = [
        load_network("mask_decoder", TINY, path, Runtime("openvino", "fp32"), 1)(*given)[0] for path in (own, other)
    ]
    assert np.abs(answers[0] - answers[1]).max() > 0.1
    assert len([*cache.glob("mask_decoder-*")]) == 2


def test_without_a_place_to_keep_networks_they_are_converted_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    monkeypatch.setenv(CACHE_VARIABLE, str(blocked))
    assert cache_folder() == blocked
    assert load("mask_decoder", "openvino", "fp32")(*arguments("mask_decoder", 1))
    assert "each start converts them again" in caplog.text


def test_networks_prepared_together_are_loaded_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    alone = load("mask_decoder", "openvino", "fp32")(*arguments("mask_decoder", 2))
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    weights = {stage: weights_path(REPOSITORY, stage) for stage in ("mask_decoder", "ssp_prompt_generator")}
    runtimes = {
        "mask_decoder": Runtime("openvino", "fp32"),
        "ssp_prompt_generator": Runtime("openvino", "bf16"),
        "text_encoder": Runtime("torch", "fp32"),
    }
    with caplog.at_level("INFO"):
        for _ in range(2):
            prepare_networks(TINY, weights, runtimes)
        assert caplog.messages == ["Converting for OpenVINO, which is done once: mask_decoder, ssp_prompt_generator"]
        together = load("mask_decoder", "openvino", "fp32")(*arguments("mask_decoder", 2))
        load("ssp_prompt_generator", "openvino", "fp32")
    assert len(caplog.messages) == 1, "nothing was converted again"
    assert {folder.name.rpartition("-")[0] for folder in tmp_path.iterdir()} == weights.keys()
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a, b)


def test_how_a_network_is_served_does_not_change_it(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load("text_encoder", "openvino", "fp32")
    monkeypatch.setattr(subprocess, "run", None)  # nothing is converted again
    other = replace(TINY, phrases_per_chunk=1, cpu_runtimes={})
    load_network("text_encoder", other, weights_path(REPOSITORY, "text_encoder"), Runtime("openvino", "fp32"), 1)


@pytest.mark.parametrize(
    ("ended", "error", "told"),
    [
        ((-9, b"a.py:1: UserWarning: odd\n  warn()"), SegmentationError, "of mask_decoder killed by signal 9"),
        ((3, b""), SegmentationError, "of mask_decoder exited with code 3"),
        ((1, b"a.py:1: UserWarning\n[INVALID_ARGUMENT] two\nlines"), InvalidArgumentError, "^two\nlines$"),
    ],
)
def test_a_conversion_that_fails_says_how(
    ended: tuple[int, bytes], error: type[Exception], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    status, said = ended
    done = subprocess.CompletedProcess([], status, stderr=said)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    with pytest.raises(error, match=told) as caught:
        load("mask_decoder", "openvino", "fp32")
    assert type(caught.value) is error
    assert not [*tmp_path.iterdir()], "nothing is left of it"


def test_networks_that_cannot_be_kept_are_not_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    monkeypatch.setenv(CACHE_VARIABLE, str(blocked))
    monkeypatch.setattr(subprocess, "run", None)  # nothing is converted in vain
    weights = {"mask_decoder": weights_path(REPOSITORY, "mask_decoder")}
    prepare_networks(TINY, weights, {"mask_decoder": Runtime("openvino", "fp32")})


def test_weights_that_do_not_fit_are_named_before_a_server_starts(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(REPOSITORY, repository)
    shutil.copy(weights_path(REPOSITORY, "text_encoder"), weights_path(repository, "mask_decoder"))
    with pytest.raises(ModelRepositoryError, match=r"repository cannot be served: .*mask_decoder"):
        prepare_networks_for_cpu(repository)


def test_missing_weights_are_named_before_a_server_starts(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(REPOSITORY, repository)
    missing = weights_path(repository, "mask_decoder")
    missing.unlink()
    with pytest.raises(ModelRepositoryError, match=f"repository cannot be served: .*{missing}"):
        prepare_networks_for_cpu(repository)


def test_a_disk_without_room_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)  # of this process and those that it starts
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
    try:
        with pytest.raises(
            SegmentationError, match=rf"cannot write the network of mask_decoder in {tmp_path}, where \d"
        ):
            load("mask_decoder", "openvino", "fp32")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not [*tmp_path.iterdir()], "nothing is left of it"


@pytest.mark.parametrize("manifest", [None, {"backend": "onnxruntime"}])
def test_what_this_package_does_not_compute_is_not_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, manifest: dict[str, str] | None
) -> None:
    monkeypatch.setattr(subprocess, "run", None)
    if manifest is not None:
        whole = json.loads((REPOSITORY / MANIFEST).read_text()) | manifest
        (tmp_path / MANIFEST).write_text(json.dumps(whole))
    prepare_networks_for_cpu(tmp_path)


def test_threads_may_share_a_network() -> None:
    network = load("mask_decoder", "openvino", "fp32")
    given = [arguments("mask_decoder", count) for count in (1, 2, 3, 4)]
    expected = [network(*each) for each in given]
    with ThreadPoolExecutor(4) as pool:
        got = [*pool.map(lambda each: network(*each), given * 3)]
    for a, b in zip(got, expected * 3, strict=True):
        for one, other in zip(a, b, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("stage", ["sam_image_encoder", "clip_image_encoder"])
def test_images_are_answered_alike_together_and_alone_to_the_bit(stage: str) -> None:
    network, given = load(stage, "openvino", "fp32"), arguments(stage, 3)
    (together,) = network(*given)
    for index, of_image in enumerate(together):
        (alone,) = network(*(values[index : index + 1] for values in given))
        np.testing.assert_array_equal(of_image, alone[0])


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_the_mask_decoder_answers_alike_about_images_that_it_remembers(precision: str) -> None:
    of_image, of_phrases, _ = arguments("mask_decoder", 3)
    images = np.concatenate([of_image, of_image[..., ::-1], -of_image])
    used, network = load("mask_decoder", "openvino", precision), load("mask_decoder", "openvino", precision)
    used(images[:2], of_phrases[:2], np.arange(2))
    used(images[1:], of_phrases, np.array([1, 0, 1]))
    for a, b in zip(
        used(images, of_phrases, np.array([2, 0, 1])), network(images, of_phrases, np.array([2, 0, 1])), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_answers_outlive_the_next_call() -> None:
    network = load("mask_decoder", "openvino", "fp32")
    first = network(*arguments("mask_decoder", 2))
    copies = [values.copy() for values in first]
    network(*[values * 0 if values.dtype == np.float32 else values for values in arguments("mask_decoder", 2)])
    for kept, copy in zip(first, copies, strict=True):
        np.testing.assert_array_equal(kept, copy)
