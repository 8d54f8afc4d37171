"""The same traffic on `segment`, `segment_ensemble` and what users might have built instead."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median

from PIL import Image

from benchmarks import services, traffic
from benchmarks.figures import Figure, Target, at_least, at_most
from benchmarks.traffic import LitServe, Load, Outcome, Service, Triton
from ssp_sam.serving import contract

OURS = contract.SEGMENT


def measure(
    repository: Path,
    image: Path,
    folder: Path,
    *,
    what: str,
    load: Load,
    turns: int,
    bound: float,
    without: Collection[str] = (),
) -> Iterator[Figure]:
    """Yield how `segment` compares.

    turns: how often each is measured; bound: the ratio of throughputs to reach; without: who is left out.
    """
    picture = Image.open(image)
    outcomes: dict[str, list[Outcome]] = {}
    log = folder / f"versus_{what.replace(' ', '_')}.log"
    for name, run in _rivals(repository, log).items():
        if name in without:
            continue
        with run() as service:
            # Only one of them can hold the cores, so they take turns; each turn is some seconds of full load.
            outcomes[name] = [traffic.run(service, picture, load, seed=turn) for turn in range(turns)]
    rate = {name: median(each.requests_per_s for each in runs) for name, runs in outcomes.items()}
    how = (
        f"{load.clients} clients, {turns} turns of {load.requests} requests, {load.new_image_share:.0%} new images, "
        f"{load.phrases} phrase each; " + ", ".join(f"{name} {value:.2f}/s" for name, value in rate.items())
    )
    for name, theirs in outcomes.items():
        if name == OURS:
            continue
        is_rival = name != contract.SEGMENT_ENSEMBLE
        pairs = [*zip(outcomes[OURS], theirs, strict=True)]
        ratios = [a.requests_per_s / b.requests_per_s for a, b in pairs]
        yield _figure(f"{what}: throughput, segment / {name}", ratios, how, at_least(bound) if is_rival else None)
        for share in (0.5, 0.95):
            ratios = [a.latency_at(share) / b.latency_at(share) for a, b in pairs]
            yield _figure(
                f"{what}: p{100 * share:.0f}, segment / {name}", ratios, how, at_most(1) if is_rival else None
            )


def _figure(name: str, ratios: list[float], how: str, target: Target | None) -> Figure:
    return Figure(name, median(ratios), "x", how, target, (min(ratios), max(ratios)))


def _rivals(repository: Path, log: Path) -> dict[str, Callable[[], AbstractContextManager[Service]]]:
    @contextlib.contextmanager
    def ours(model: str) -> Iterator[Service]:
        with services.triton(repository, log) as server:
            yield Triton(server.grpc_url, model)

    @contextlib.contextmanager
    def monolith() -> Iterator[Service]:
        with services.monolith(repository, log) as server:
            yield Triton(server.grpc_url, contract.SEGMENT_ENSEMBLE)

    @contextlib.contextmanager
    def litserve() -> Iterator[Service]:
        with services.litserve(repository, log) as url:
            yield LitServe(url)

    return {
        OURS: lambda: ours(contract.SEGMENT),
        contract.SEGMENT_ENSEMBLE: lambda: ours(contract.SEGMENT_ENSEMBLE),
        "LitServe": litserve,
        "monolith": monolith,
    }
