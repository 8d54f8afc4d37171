"""What the server adds to the model, what it needs, and how it behaves as load grows."""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
from PIL import Image
from tritonclient import grpc

from benchmarks import in_process, services, traffic
from benchmarks.figures import Figure, at_least, at_most, ratio
from benchmarks.phrases import PHRASES, phrases
from benchmarks.timing import in_turns, interleaved
from benchmarks.traffic import Load, Outcome, Triton
from ssp_sam.client import SegmentationClient
from ssp_sam.predictor import Predictor
from ssp_sam.preprocess import prepare, read_image
from ssp_sam.runtime import cpu_threads, keep_freed_memory
from ssp_sam.serving import contract
from ssp_sam.serving.server import TritonServer

TURNS = 5
MANY_PHRASES = 8
NEW_IMAGES = 0.2
Sweeps = dict[str, list[dict[str, Any]]]


def measure(repository: Path, image: Path, folder: Path) -> Iterator[Figure]:
    """Yield cost and needs of a server, beside the same work in this process."""
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as empty:
        start_s = time.perf_counter()
        with services.triton(repository, folder / "server.log", cache=empty):
            ready_s = time.perf_counter() - start_s
    how = "from start to all models ready, once; networks have to be converted"
    yield Figure("server: ready for the first time", ready_s, "s", how, at_most(20))
    predictor = Predictor.from_repository(repository, threads=len(os.sched_getaffinity(0)))
    start_s = time.perf_counter()
    with services.triton(repository, folder / "server.log") as server:
        ready_s = time.perf_counter() - start_s
        yield Figure("server: ready", ready_s, "s", "from start to all models ready, once", at_most(20))
        yield from _idle_memory()
        yield from _one_client(server, predictor, image)
        yield from _many_clients(server, predictor, image)
        yield from _large_request(server)
        sweeps = grow(server, Image.open(image))
    (folder / "sweeps.json").write_text(json.dumps(sweeps, indent=1) + "\n", encoding="utf-8")


def _idle_memory() -> Iterator[Figure]:
    sizes = services.memory_mib()
    for name, mib in sorted(sizes.items()):
        yield Figure(f"memory: {name}", mib, "MiB", "PSS after start, nothing asked yet")
    yield Figure("memory: all processes", sum(sizes.values()), "MiB", "PSS after start, nothing asked yet")


def _one_client(server: TritonServer, predictor: Predictor, image: Path) -> Iterator[Figure]:
    features, file = predictor.encode_image(image), image.read_bytes()
    with SegmentationClient(server.grpc_url) as client:
        client.segment(file, PHRASES[:1])
        seconds = in_turns(
            {
                "served": lambda: client.segment(file, PHRASES[:1]),
                "in process": lambda: predictor.segment(features, PHRASES[:1]),
            },
            turns=5,
            repeats=20,
            warmup=5,
        )
    added_ms = [1000 * (a - b) for a, b in zip(seconds["served"], seconds["in process"], strict=True)]
    how = (
        "1 phrase, image known; 5 turns of 20 calls after 5, of the one and of the other, medians of each; in process "
        f"{1000 * median(seconds['in process']):.1f} ms"
    )
    yield Figure(
        "server: latency added for one client", median(added_ms), "ms", how, at_most(10), (min(added_ms), max(added_ms))
    )


def _many_clients(server: TritonServer, predictor: Predictor, image: Path) -> Iterator[Figure]:
    """Throughput of 32 clients beside that of the best batches in process, by turns."""
    # So many requests that beginning and end of a turn, when calls are short of company, hardly count.
    load = Load(clients=32, requests=480, new_image_share=0.0)
    loads = {
        "": load,
        " on one image": replace(load, recent_images=1),  # as in process
        f" with {MANY_PHRASES} phrases a request": replace(load, phrases=MANY_PHRASES, requests=64),
        f" and {NEW_IMAGES:.0%} new images": replace(load, new_image_share=NEW_IMAGES, requests=240),
    }
    picture = Image.open(image)
    of_phrases, of_images = in_process.best_phrases(predictor, image), in_process.best_images(predictor, image)
    ratios: dict[str, list[float]] = {name: [] for name in loads}
    spent_ms: list[float] = []
    for turn in range(TURNS):
        for name, each in loads.items():
            # Before and after, and the mean of both: the machine's speed may change meanwhile.
            before = of_phrases.cost(), of_images.cost() if each.new_image_share else None
            requests_per_s = traffic.run(Triton(server.grpc_url), picture, each, seed=turn).requests_per_s
            after = of_phrases.cost(), of_images.cost() if each.new_image_share else None
            request_s = [
                each.phrases * phrase.wall_s + (each.new_image_share * new.wall_s if new else 0.0)
                for phrase, new in (before, after)
            ]
            ratios[name].append(requests_per_s * mean(request_s))
            spent_ms += [1000 * phrase.cpu_s for phrase, _ in (before, after)]
    for name, found in ratios.items():
        each = loads[name]
        how = (
            f"32 clients, {each.phrases} phrase(s) a request, {each.recent_images} known image(s), {TURNS} turns of "
            f"{each.requests} requests, each between two in process, with {of_phrases.size} {of_phrases.name} a call"
        )
        if each.new_image_share:
            how += f" and {of_images.size} {of_images.name}"
        target = at_least(0.8) if each.phrases == 1 else None
        yield Figure(
            f"server: throughput of 32 clients{name} / in process",
            median(found),
            "x",
            how,
            target,
            (min(found), max(found)),
        )
    how = f"of all threads, {of_phrases.size} {of_phrases.name} a call, {len(spent_ms)} times"
    yield Figure("cpu: a phrase in process", median(spent_ms), "ms", how, spread=(min(spent_ms), max(spent_ms)))
    yield from _cpu_of_a_request(server, picture, load)


def _cpu_of_a_request(server: TritonServer, picture: Image.Image, load: Load) -> Iterator[Figure]:
    """Processor time of each process for a request whose image is known."""
    traffic.run(Triton(server.grpc_url), picture, load, seed=99)  # all its images are kept from now on
    before: dict[str, float] = {}
    traffic.run(Triton(server.grpc_url), picture, load, seed=99, on_start=lambda: before.update(services.cpu_s()))
    spent_ms = {
        name: 1000 * (end_s - before.get(name, 0.0)) / load.requests for name, end_s in services.cpu_s().items()
    }
    how = f"{load.clients} clients, 1 phrase a request, images known, {load.requests} requests"
    for name, figure in sorted(spent_ms.items(), key=lambda entry: -entry[1]):
        yield Figure(f"cpu: a request, {name}", figure, "ms", how)
    yield Figure("cpu: a request, all processes", sum(spent_ms.values()), "ms", how)


def _large_request(server: TritonServer) -> Iterator[Figure]:
    """Memory of 64 phrases on a large photograph."""
    rng = np.random.default_rng(0)
    pixels = np.kron(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8), np.ones((50, 50, 1), dtype=np.uint8))
    before = sum(services.memory_mib().values())
    peak = before
    with SegmentationClient(server.grpc_url, timeout_s=300) as client:
        done = threading.Event()
        answers: list[Any] = []

        def ask() -> None:
            answers.extend(client.segment(pixels, phrases(64)))
            done.set()

        thread = threading.Thread(target=ask)
        thread.start()
        while not done.wait(0.1) and thread.is_alive():
            peak = max(peak, sum(services.memory_mib().values()))
        thread.join()
        alone = [client.segment(pixels, [phrase])[0] for phrase in PHRASES]
    how = "PSS of all of the server's processes, watched every 0.1 s"
    yield Figure("server: memory for 64 phrases on 4000 x 3000", peak - before, "MiB", how, at_most(1536))
    differing = sum(
        not np.array_equal(a.mask, b.mask) or a.score != b.score
        for a, b in zip(alone, answers[: len(alone)], strict=True)
    )
    yield Figure("server: of 8 phrases, answered otherwise among 64 than alone", differing, "phrases", how, at_most(0))


def measure_encoding(repository: Path, image: Path, folder: Path) -> Iterator[Figure]:
    """Yield what serving costs where the image encoder is of full size."""
    predictor = Predictor.from_repository(repository, threads=cpu_threads("all"))  # as many as the server's encoder
    inputs = prepare(read_image(image), predictor.preset)
    sam_image, geometry = inputs.sam_image[None], inputs.geometry.to_array()[None]
    with services.triton(repository, folder / "server_full_size.log") as server:
        client = grpc.InferenceServerClient(server.grpc_url)
        sent = [
            grpc.InferInput(contract.sam_image(predictor.preset).name, sam_image.shape, "UINT8"),
            grpc.InferInput(contract.GEOMETRY.name, geometry.shape, "INT32"),
        ]
        sent[0].set_data_from_numpy(sam_image)
        sent[1].set_data_from_numpy(geometry)

        encode = predictor.networks[contract.SAM_IMAGE_ENCODER]
        calls = {
            "in process": partial(encode, sam_image, geometry[:, 1]),
            "served": partial(client.infer, contract.SAM_IMAGE_ENCODER, sent),
        }
        seconds = interleaved(calls, repeats=5)
        client.close()
    how = f"preset {predictor.preset.name}, stage sam_image_encoder, all cores, 5 pairs after 1"
    yield ratio(
        "full size: encoding, served / in process", seconds["in process"], seconds["served"], how, at_least(0.97)
    )


# --- growth -----------------------------------------------------------------------------------------------------------

_BASE = Load(clients=16, requests=120, new_image_share=0.2)
_SWEEPS: Mapping[str, Sequence[Load]] = {
    "clients": [replace(_BASE, clients=n, requests=max(24, min(160, 6 * n))) for n in (1, 2, 4, 8, 16, 32, 64, 128)],
    "image size": [
        replace(_BASE, size_wh=size, requests=48) for size in ((320, 240), (640, 480), (1280, 960), (2560, 1920))
    ],
    "phrases": [replace(_BASE, phrases=n, requests=max(16, 96 // n)) for n in (1, 2, 4, 8, 16, 32)],
    "hit rate": [replace(_BASE, new_image_share=1 - rate, requests=64) for rate in (0.0, 0.25, 0.5, 0.75, 1.0)],
}


def grow(server: TritonServer, image: Image.Image) -> Sweeps:
    """Return for each sweep its loads with throughput, latencies and where Triton spent the time, in milliseconds."""
    sweeps: Sweeps = {}
    for name, loads in _SWEEPS.items():
        sweeps[name] = []
        for number, load in enumerate(loads):
            before = _statistics(server)
            outcome = traffic.run(Triton(server.grpc_url), image, load, seed=1000 + number)
            sweeps[name].append(asdict(load) | _summary(outcome) | {"stages": _spent(before, _statistics(server))})
    return sweeps


def _summary(outcome: Outcome) -> dict[str, float]:
    percentiles = {f"p{share:.0f}_ms": 1000 * outcome.latency_at(share / 100) for share in (50.0, 95.0, 99.0)}
    return {"requests_per_s": outcome.requests_per_s, **percentiles}


def _statistics(server: TritonServer) -> dict[str, dict[str, Any]]:
    with urllib.request.urlopen(f"{server.http_url}/v2/models/stats") as response:
        stats = json.load(response)["model_stats"]
    return {model["name"]: model for model in stats}


def _spent(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return by stage the mean milliseconds of a request in its queue and in its computation, and the mean batch."""
    spent = {}
    for name in contract.STAGE_NAMES:

        def grown(read: Callable[[dict[str, Any]], float], name: str = name) -> float:
            return read(after[name]) - read(before[name])

        requests = grown(lambda stats: stats["inference_stats"]["success"].get("count", 0))
        if not requests:
            continue
        spent[name] = {
            "queue_ms": grown(lambda stats: stats["inference_stats"]["queue"].get("ns", 0)) / requests / 1e6,
            "compute_ms": grown(lambda stats: stats["inference_stats"]["compute_infer"].get("ns", 0)) / requests / 1e6,
            "batch": requests / max(1.0, grown(lambda stats: stats["execution_count"])),
        }
    return spent
