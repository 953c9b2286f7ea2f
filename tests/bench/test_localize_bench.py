"""`localize` with every method: passes through the backbone, photos per second, torchcam on one network; its memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.datasets import FakeData
from turns import ratio, rounds

from wsolnb.boxes import BoxRule
from wsolnb.data.taxonomy import Taxonomy
from wsolnb.inference.fit import METHOD_NAMES, fit
from wsolnb.models.backbones import backbone
from wsolnb.papers.method import Fitted, Start, Trained
from wsolnb.papers.side_by_side.methods import Settings, build_methods
from wsolnb.train import Plan, Training

pytestmark = pytest.mark.bench
SIDE, BATCH, CLASSES = 128, 16, ("ace", "jack", "king", "nine", "queen", "ten")
TREE = Taxonomy({name: "card" for name in CLASSES})
PASSES = {"csoa": 1, "ornet": 2}
"""Passes of a photo through a backbone, or the part of it that a generator reads; all others but beam search: 1."""


@pytest.fixture(scope="module")
def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(scope="module")
def images(device: str) -> Tensor:
    """Smooth photos, which differ from each other."""
    coarse = torch.rand(BATCH, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    return nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bicubic").clamp(0, 1).to(device)


def untrained(name: str, device: str) -> Fitted:
    """A method with networks as `fit` builds them, without training: MobileNetV2, beam search at its own stride."""
    body = backbone("mobilenet_v2", weights=None, stride=32 if name == "beam" else 16)
    inner = list(body.stages)[-2]
    shape = {
        "inner": inner,
        "inner_pool": body.stride // body.strides[inner],
        "shallow": None,
        "grid": SIDE // body.stride,
    }
    settings = Settings(**shape, head_width=128, embed_size=96, generator_width=16, hidden=(), adapt=256)  # type: ignore[arg-type]
    method = build_methods(settings)[METHOD_NAMES[name]]
    blank = [(torch.zeros(3, SIDE, SIDE), label) for label in range(len(CLASSES)) for _ in range(2)]
    start = Start(body, blank, CLASSES, Plan(1, batch_size=1), TREE)  # type: ignore[arg-type]
    networks: dict[str, Trained] = {}
    for each in (*method.needs, method):
        network, objective, _ = each.untrained(start, networks)
        objective = objective.to(device) if isinstance(objective, nn.Module) else objective
        networks[each.network] = Trained(network.to(device).eval(), objective, Training())
    return Fitted(method, networks)


def passes(fitted: Fitted, images: Tensor) -> float:
    """Images through a first convolution of any backbone, per photo."""
    counts: list[int] = []
    firsts = {id(m): m for trained in fitted.networks.values() for m in trained.network.modules()
              if isinstance(m, nn.Conv2d) and m.in_channels == 3}  # fmt: skip
    hooks = [
        first.register_forward_hook(lambda module, given, result: counts.append(len(result)))
        for first in firsts.values()
    ]
    fitted.localize(images)
    for hook in hooks:
        hook.remove()
    return sum(counts) / len(images)


def test_what_every_method_costs(images: Tensor, device: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["| method | passes per photo | photos/s | time in passes of CAM's network |", "|---|---|---|---|"]
    plain = untrained("cam", device).networks["gap"].network

    def bare() -> Tensor:
        with torch.inference_mode():
            output: Tensor = plain(images)
            return output

    for name in METHOD_NAMES:
        fitted = untrained(name, device)
        count = passes(fitted, images)
        times = rounds(
            1 if name == "beam" else 5, device, ours=lambda fitted=fitted: fitted.localize(images), bare=bare
        )
        cost = ratio(times, "ours", "bare")
        lines.append(f"| {name} | {count:.1f} | {BATCH / median(times['ours']):.1f} | {cost:.2f} |")
        if name != "beam":
            assert count == PASSES.get(name, 1), name
            assert cost <= 1.5 * PASSES.get(name, 1) + 0.5, name
    with capsys.disabled():
        print(f"\n{device}, MobileNetV2, {SIDE} px, batches of {BATCH}\n" + "\n".join(lines))


def test_cam_is_not_slower_than_torchcam_on_the_same_network(images: Tensor, device: str) -> None:
    methods = pytest.importorskip("torchcam.methods", reason="pip install torchcam")
    fitted, rule = untrained("cam", device), BoxRule(0.3, resize="bilinear")
    network = fitted.networks["gap"].network

    def theirs() -> object:
        with torch.inference_mode():
            labels = network(images).argmax(dim=1)
        return rule(extractor(labels.tolist(), normalized=True)[0][:, None], (SIDE, SIDE))

    with methods.CAM(network, "backbone", "head", input_shape=(3, SIDE, SIDE)) as extractor:
        times = rounds(10, device, ours=lambda: fitted.localize(images, 1, rule), theirs=theirs)
    cost = ratio(times, "ours", "theirs")
    print(f"{device}: {cost:.3f} of torchcam's CAM with the same boxes, {BATCH / median(times['ours']):.1f} photos/s")
    assert cost <= 1.1


CHILD = """
import resource, sys
from wsolnb.cli.app import app
app(sys.argv[1:], standalone_mode=False)
pages = int(open("/proc/self/statm").read().split()[1])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, pages * resource.getpagesize() // 2**20)
"""


def test_memory_does_not_grow_with_the_number_of_photos(tmp_path: Path) -> None:
    photos = FakeData(12, (3, 48, 64), num_classes=2)
    photos.classes = ["cat", "dog"]
    model = fit(photos, backbone="tiny", weights=None, image_size=32, epochs=1, device="cpu").save(tmp_path / "model")
    used = {}
    for count in (200, 2000):
        folder = tmp_path / str(count)
        folder.mkdir()
        for number in range(count):
            noise = np.random.default_rng(number).integers(0, 256, (48, 64, 3), dtype=np.uint8)
            Image.fromarray(noise).save(folder / f"{number}.png")
        given = ["localize", folder, "--model", model, "-o", tmp_path / f"out-{count}", "--format", "coco", "--format",
                 "label-studio", "--format", "csv", "--device", "cpu"]  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", CHILD, *map(str, given)], capture_output=True, text=True, check=True
        )
        used[count] = [int(value) for value in done.stdout.split()[-2:]]
    print(f"MiB at the peak and at the end: {used[200]} with 200 photos, {used[2000]} with 2,000")
    assert max(many - few for many, few in zip(used[2000], used[200], strict=True)) < 20
