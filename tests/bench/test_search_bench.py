"""What the beam search costs: against one candidate at a time on a CPU, and per image with VGG16 on a GPU."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor

from wsolnb.papers.bency2016.network import GridClassifier, grid_classifier
from wsolnb.papers.bency2016.search import BeamSearch
from wsolnb.papers.bency2016.windows import crop_and_resize

CLASSES = 20  # as VOC has


def softmax(outputs: Tensor) -> Tensor:
    return outputs.softmax(dim=1)


def spread(model: GridClassifier) -> GridClassifier:
    """Random weights whose scores differ between windows and classes."""
    with torch.no_grad():
        for layer in (model.head[0], model.head[2]):
            layer.weight *= 8
    return model.eval()


@torch.inference_mode()
def one_at_a_time(model: GridClassifier, image: Tensor, klass: int, width: int, depth: int) -> int:
    """The same search for one class, every candidate cut out of the image and classified alone; their number."""
    beam, seen, cells = [(0.0, 0.0, 1.0, 1.0)], 0, model.grid
    for _ in range(depth):
        found: dict[tuple[float, ...], float] = {}
        for x0, y0, x1, y1 in beam:
            across, down = (x1 - x0) / cells, (y1 - y0) / cells
            for window in (
                (x0, y0, x1 - across, y1),
                (x0 + across, y0, x1, y1),
                (x0, y0, x1, y1 - down),
                (x0, y0 + down, x1, y1),
            ):
                crop = crop_and_resize(image[None], torch.tensor([0]), torch.tensor([window]), model.side)
                found[tuple(round(c, 9) for c in window)] = float(softmax(model(crop))[0, klass])
                seen += 1
        beam = sorted(found, key=lambda w: -found[w])[:width]  # type: ignore[assignment]
    return seen


@pytest.mark.bench
@pytest.mark.parametrize(
    ("hidden", "classes", "times"),
    [((256,), 80, 20), ((4096, 4096), 20, 15)],
    ids=["80 classes, as COCO has", "20 classes, layers as wide as the paper's"],
)
def test_faster_than_one_candidate_at_a_time(
    hidden: tuple[int, ...], classes: int, times: int, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = spread(grid_classifier("tiny", classes, grid=7, hidden=hidden, adapt=128))
    images = torch.rand(1, 3, 112, 128)
    search = BeamSearch(width=8, depth=10)
    with torch.inference_mode():
        model(images[:, :, :56, :56])  # warm up
    start = time.process_time()
    tree = search(model, images, softmax)
    fast = (time.process_time() - start) / (len(images) * classes)
    start = time.process_time()
    candidates = one_at_a_time(model, images[0], 7, 8, 10)
    slow = time.process_time() - start
    torch.set_num_threads(threads)
    with capsys.disabled():
        print(
            f"\nlayers of {hidden}, M = 8, H = 10, {classes} classes: {sum(tree.windows) / len(images):.0f} windows "
            f"and {sum(tree.crops) / len(images):.0f} crops per image, {1000 * fast:.1f} ms per class and image; one "
            f"candidate at a time: {candidates} windows per class and image, {1000 * slow:.0f} ms: "
            f"{slow / fast:.0f} times as long"
        )
    assert slow > times * fast


@pytest.mark.bench
@pytest.mark.gpu
def test_vgg16_on_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    model = spread(grid_classifier("vgg16", CLASSES)).cuda()
    images = torch.rand(8, 3, 320, 320, device="cuda")
    search = BeamSearch(width=8, depth=10)
    for wanted in (torch.eye(CLASSES, device="cuda", dtype=torch.bool)[:8], None):
        search(model, images, softmax, wanted)
        torch.cuda.synchronize()
        start = time.perf_counter()
        tree = search(model, images, softmax, wanted)
        torch.cuda.synchronize()
        cost = 1000 * (time.perf_counter() - start) / len(images)
        with capsys.disabled():
            print(
                f"\nVGG16, M = 8, H = 10, {len(tree.pairs) // 8} classes per image: {cost:.0f} ms per image, "
                f"{sum(tree.windows) / 8:.0f} windows and {sum(tree.crops) / 8:.0f} crops (the paper: 2600 ms)"
            )
    assert cost < 2600 * CLASSES
