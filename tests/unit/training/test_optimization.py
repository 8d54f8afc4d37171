import json
import math
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import multiprocessing, nn

from ssp_sam.config import Preset
from ssp_sam.training.config import parse_config
from ssp_sam.training.optimization import AveragedWeights, make_optimizer, set_learning_rate
from ssp_sam.training.ranks import Ranks
from ssp_sam.training.trainee import Trainee, sinusoids


def test_learning_rates_follow_warm_up_and_cosine(run_table: dict[str, Any], nano: Preset) -> None:
    run_table["phases"][1] |= {"steps": 10, "warmup_steps": 2, "learning_rate": 1.0, "final_learning_rate_share": 0.1}
    phase = parse_config(run_table, "here").phases[1]
    trainee = Trainee(nano)
    trainee.train_only(phase.train)
    optimizer = make_optimizer(trainee, phase)
    rates = []
    for step in (0, 1, 2, 6, 9):
        set_learning_rate(optimizer, phase, step)
        rates.append({group["rate_share"]: group["lr"] for group in optimizer.param_groups})
    assert [rate[1.0] for rate in rates] == pytest.approx([0.5, 1.0, 1.0, 0.55, 0.1343], abs=1e-3)
    assert [rate[0.5] for rate in rates] == pytest.approx([rate[1.0] / 2 for rate in rates])


def test_epochs_keep_one_rate_each(run_table: dict[str, Any], nano: Preset) -> None:
    run_table["sets"] = {"refcoco": {"root": "data"}}
    del run_table["phases"][1]["steps"], run_table["phases"][1]["warmup_steps"]
    run_table["phases"][1] |= {
        "epochs": 80,
        "warmup_epochs": 5,
        "learning_rate": 1e-4,
        "lowest_learning_rate": 1e-6,
        "sets": ["refcoco"],
        "train": {"ssp_prompt_generator": 1.0, "mask_decoder": 0.1},
    }
    phase = parse_config(run_table, "here").phases[1]
    optimizer = make_optimizer(Trainee(nano), phase)
    rates = []
    for epoch in (0, 1, 4, 5, 40, 79):
        set_learning_rate(optimizer, phase, 1000 * epoch + 7, epoch)
        rates.append({group["rate_share"]: group["lr"] for group in optimizer.param_groups})
    # As timm's CosineLRScheduler(t_initial=80, lr_min=1e-6, warmup_t=5, warmup_lr_init=1e-6) by hand.
    expected = [1e-6, 1e-6 + 99e-6 / 5, 1e-6 + 4 * 99e-6 / 5]
    expected += [1e-6 + 99e-6 * (1 + math.cos(math.pi * epoch / 80)) / 2 for epoch in (5, 40, 79)]
    assert [rate[1.0] for rate in rates] == pytest.approx(expected, rel=1e-6)
    assert rates[0][0.1] == pytest.approx(1e-6)
    assert rates[4][0.1] == pytest.approx((1e-5 + 1e-6) / 2)


def test_only_matrices_decay(run_table: dict[str, Any], nano: Preset) -> None:
    run_table["phases"][1]["weight_decay"] = 0.1
    trainee = Trainee(nano)
    optimizer = make_optimizer(trainee, parse_config(run_table, "here").phases[1])
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    generator = trainee.model.ssp_prompt_generator.generator
    fuse = trainee.model.ssp_prompt_generator.fuse
    assert decay[id(fuse.weight)] == 0.1
    assert decay[id(fuse.bias)] == 0
    assert decay[id(generator.position.weight)] == 0
    run_table["phases"][1]["decay_all"] = True
    everything = make_optimizer(trainee, parse_config(run_table, "here").phases[1])
    assert {group["weight_decay"] for group in everything.param_groups} == {0.1}
    trained = [trainee.model.ssp_prompt_generator, trainee.model.mask_decoder]
    assert decay.keys() == {id(p) for module in trained for p in module.parameters()}


def test_muon_takes_the_matrices_between_layers(run_table: dict[str, Any], nano: Preset) -> None:
    run_table["phases"][1]["train"] = {"ssp_prompt_generator": 1.0, "sam_image_encoder": 0.5}
    trainee = Trainee(nano)
    optimizers = {
        name: make_optimizer(trainee, parse_config(run_table | {"phases": [phase]}, "here").phases[0])
        for name in ("adamw", "muon")
        for phase in [run_table["phases"][1] | {"optimizer": name}]
    }
    updated = {
        name: [id(p) for group in optimizer.param_groups for p in group["params"]]
        for name, optimizer in optimizers.items()
    }
    assert sorted(updated["muon"]) == sorted(updated["adamw"])  # each parameter once
    by_muon = {
        id(p): group["rate_share"]
        for group in optimizers["muon"].param_groups
        if "ns_steps" in group
        for p in group["params"]
    }
    prompts, encoder = trainee.model.ssp_prompt_generator, trainee.model.sam_image_encoder
    assert by_muon[id(prompts.generator.layers[0].self_attn.in_proj_weight)] == 1.0
    assert by_muon[id(encoder.vit.blocks[0].mlp.lin1.weight)] == 0.5
    for other in (
        prompts.fuse.bias,
        prompts.generator.position.weight,
        prompts.generator.bbox_embed.layers[-1].weight,
        encoder.vit.patch_embed.proj.weight,
        encoder.vit.blocks[1].attn.rel_pos_h,
    ):
        assert id(other) not in by_muon


def test_averaged_weights() -> None:
    module = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        module.weight.fill_(0)
        average = AveragedWeights(module, decay=0.9)
        for step in range(200):
            module.weight.fill_(1.0)
            average.update(step)
            if step == 0:
                assert average.state_dict()["weight"].item() == pytest.approx(0.9)  # 1 / 10 is kept
        module.weight.fill_(7.0)
        average.update(200)
        with average.applied():
            assert module.weight.item() == pytest.approx(0.9 * 1 + 0.1 * 7)
        assert module.weight.item() == 7
        average.keep()
        assert module.weight.item() == pytest.approx(1.6)


def test_sinusoids_tell_every_place_apart() -> None:
    places = sinusoids(16, 128)
    assert places.shape == (256, 128)
    assert places.abs().max() <= 1
    apart = torch.cdist(places, places) + 100 * torch.eye(256)
    assert apart.min() > 0.5


def _average(rank: int, port: int, folder: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    ranks = Ranks(rank, 2)
    parameters = [nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(()))]
    parameters.append(nn.Parameter(torch.zeros(1)))  # which nobody used
    table = nn.Parameter(torch.zeros(20_000, 2))  # of which the processes use one row each, and one both
    parameters.append(table)
    table.grad = torch.zeros_like(table)
    table.grad[[7, 11 + rank]] = torch.tensor([[1.0 + rank, torch.nan], [4.0, -2.0]])
    parameters[0].grad = torch.full((2, 2), float(rank))
    parameters[1].grad = torch.arange(3.0) * (1 + rank)
    parameters[2].grad = torch.tensor(2.0 * rank)
    ranks.average_gradients(parameters)
    gradients = [parameter.grad.tolist() for parameter in parameters[:3] if parameter.grad is not None]
    rows = {row: str(table.grad[row].tolist()) for row in table.grad.any(dim=1).nonzero()[:, 0].tolist()}
    found = [*gradients, rows, ranks.any(rank == 1), ranks.any(False), ranks.gather({"rank": rank})]
    (folder / f"{rank}.json").write_text(json.dumps(found))
    ranks.leave()


def test_processes_average_gradients_and_agree_to_stop(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    multiprocessing.spawn(_average, (port, tmp_path), nprocs=2)  # type: ignore[attr-defined, no-untyped-call]
    rows = {"7": "[1.5, nan]", "11": "[2.0, -1.0]", "12": "[2.0, -1.0]"}
    expected = [[[0.5, 0.5], [0.5, 0.5]], [0.0, 1.5, 3.0], 1.0, rows, True, False, [{"rank": 0}, {"rank": 1}]]
    assert [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)] == [expected, expected]
