"""Beam search: against a slow search that looks at one candidate at a time, by hand on small grids, and its limits."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from wsolnb.localization.points import peaks
from wsolnb.papers.bency2016.network import GridClassifier, grid_classifier
from wsolnb.papers.bency2016.search import BeamSearch, _best
from wsolnb.papers.bency2016.windows import CHILDREN, Level, SearchTree, crop_and_resize, resample, resampled_children


def softmax(outputs: Tensor) -> Tensor:
    return outputs.softmax(dim=1)


@pytest.fixture(scope="module")
def net() -> GridClassifier:
    model = grid_classifier("tiny", 4, grid=4, hidden=(16,), adapt=8).eval()
    with torch.no_grad():
        for layer in (model.dense[0], model.head[0], model.head[2]):
            layer.weight *= 6  # so that scores differ between windows
    return model


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(3, 3, 40, 56, generator=torch.Generator().manual_seed(1))


Found = tuple[tuple[str, str], tuple[float, ...], float]


@torch.inference_mode()
def one_at_a_time(model: GridClassifier, image: Tensor, klass: int, width: int, depth: int) -> list[list[Found]]:
    """The kept windows of every level, for one class of one image: steps along x and y, corners, score.

    Where two parents share a child, the better of its two scores counts.
    """
    beam: list[Found] = [(("", ""), (0.0, 0.0, 1.0, 1.0), 0.0)]
    levels, cells = [], model.grid
    for _ in range(depth):
        found: dict[tuple[str, str], Found] = {}
        for (x_steps, y_steps), window, _ in beam:
            crop = crop_and_resize(
                image[None], torch.tensor([0]), torch.tensor([window], dtype=torch.float64), model.side
            )
            grid = model.features(crop)
            x0, y0, x1, y1 = window
            across, down = (x1 - x0) / cells, (y1 - y0) / cells
            for steps, cut in {
                (x_steps + "0", y_steps): (0, 0, -1, 0),
                (x_steps + "1", y_steps): (1, 0, 0, 0),
                (x_steps, y_steps + "0"): (0, 0, 0, -1),
                (x_steps, y_steps + "1"): (0, 1, 0, 0),
            }.items():
                left, top, right, bottom = cut
                part = grid[:, :, top : cells + bottom, left : cells + right]
                stretched = F.interpolate(part, (cells, cells), mode="bilinear", align_corners=True)
                score = float(softmax(model.classify(stretched).double())[0, klass])
                child = (x0 + left * across, y0 + top * down, x1 + right * across, y1 + bottom * down)
                found[steps] = max(found.get(steps, (steps, child, score)), (steps, child, score), key=lambda f: f[2])
        beam = sorted(found.values(), key=lambda f: -f[2])[:width]
        levels.append(beam)
    return levels


@pytest.mark.parametrize("width", [1, 3])
def test_it_finds_what_a_search_of_one_candidate_at_a_time_finds(
    net: GridClassifier, images: Tensor, width: int
) -> None:
    tree = BeamSearch(width, depth=4)(net, images, softmax)
    assert tree.pairs.tolist() == [list(pair) for pair in itertools.product(range(3), range(4))]
    for row, (image, klass) in enumerate(tree.pairs.tolist()):
        slow = one_at_a_time(net, images[image], klass, width, 4)
        for level, expected in zip(tree.levels[1:], slow, strict=True):
            kept = level.kept[row]
            assert level.scores[kept, klass].tolist() == pytest.approx([f[2] for f in expected], rel=1e-4)
            corners = list(itertools.chain(*(f[1] for f in expected)))
            assert level.windows[kept].flatten().tolist() == pytest.approx(corners)


@pytest.mark.parametrize("recrop", [True, False])
def test_a_class_gets_the_same_answer_whichever_others_are_searched(
    net: GridClassifier, images: Tensor, recrop: bool
) -> None:
    search = BeamSearch(width=3, depth=4, recrop=recrop)
    every = search(net, images, softmax)
    points = peaks(every.heat(16))
    for classes in [[0], [1], [2], [3], [0, 1, 3]]:
        wanted = torch.zeros(3, 4, dtype=torch.bool)
        wanted[:, classes] = True
        some = search(net, images, softmax, wanted)
        rows = wanted[every.pairs[:, 0], every.pairs[:, 1]]
        for mine, theirs in zip(some.survivors(), every.survivors(), strict=True):
            assert torch.allclose(mine, theirs[rows], atol=1e-6)
        assert torch.allclose(some.heat(16)[:, classes], every.heat(16)[:, classes], atol=1e-5)
        assert torch.equal(peaks(some.heat(16))[:, classes], points[:, classes])


def test_an_image_gets_the_same_answer_whichever_others_are_searched(net: GridClassifier, images: Tensor) -> None:
    search = BeamSearch(width=3, depth=3)
    together = search(net, images, softmax)
    for image in range(3):
        alone = search(net, images[image : image + 1], softmax)
        rows = together.pairs[:, 0] == image
        assert torch.allclose(together.heat(8)[image], alone.heat(8)[0], atol=1e-5)
        assert torch.allclose(together.survivors()[1][rows], alone.survivors()[1], atol=1e-6)


def test_equal_windows_are_cropped_once_and_kept_once(net: GridClassifier, images: Tensor) -> None:
    tree = BeamSearch(width=None, depth=4)(net, images[:1], softmax)
    # level d has d + 1 numbers of steps along x, times 2^d orders of sides, and every window of it four children
    assert tree.crops == [1, 0, 4, 12, 32]
    assert tree.windows == [1, 4, 4 * 4, 4 * 12, 4 * 32]
    for level, distinct in zip(tree.levels, [1, 4, 12, 32, 80], strict=True):
        assert len({tuple(w) for w in level.windows.tolist()}) == distinct
        assert all(len({tuple(w) for w in level.windows[kept].tolist()}) == distinct for kept in level.kept)


def test_on_one_grid_equal_windows_are_scored_once(net: GridClassifier, images: Tensor) -> None:
    tree = BeamSearch(width=None, depth=4, recrop=False)(net, images[:1], softmax)
    assert tree.windows == [1, 4, 10, 20, 25]  # (i + 1)(j + 1) places after i and j steps
    for level in tree.levels:
        assert len({tuple(w) for w in level.windows.tolist()}) == len(level.windows)


@torch.inference_mode()
def test_exhaustive_search_of_one_grid_sees_every_window_of_it(net: GridClassifier, images: Tensor) -> None:
    tree = BeamSearch(width=None, depth=20, recrop=False)(net, images[:1], softmax)
    assert len(tree.levels) == 1 + 6  # from 4x4 to 1x1
    assert sum(tree.windows) == (4 * 5 // 2) ** 2
    assert tree.crops == [1] + [0] * 6
    grid, best = (
        net.features(crop_and_resize(images[:1], torch.tensor([0]), torch.tensor([[0.0, 0, 1, 1]]), net.side)),
        0.0,
    )
    for x0, y0 in itertools.product(range(4), repeat=2):
        for x1, y1 in itertools.product(range(x0 + 1, 5), range(y0 + 1, 5)):
            part = F.interpolate(grid[:, :, y0:y1, x0:x1], (4, 4), mode="bilinear", align_corners=True)
            best = max(best, float(softmax(net.classify(part))[0, 2]))
    assert float(tree.best()[1][2]) == pytest.approx(best, rel=1e-5)


def test_more_width_never_finds_less_on_one_grid(net: GridClassifier, images: Tensor) -> None:
    found = [BeamSearch(m, 6, recrop=False)(net, images, softmax) for m in (1, None)]
    assert bool((found[1].best()[1] >= found[0].best()[1] - 1e-9).all())
    assert sum(found[0].windows) < sum(found[1].windows)


def test_children_lie_in_their_parents_and_lose_one_step_on_one_side(net: GridClassifier, images: Tensor) -> None:
    tree = BeamSearch(width=2, depth=5)(net, images, softmax)
    for above, level in itertools.pairwise(tree.levels):
        parents = above.windows[level.parent]
        assert bool((level.image == above.image[level.parent]).all())
        assert bool((level.windows[:, :2] >= parents[:, :2] - 1e-12).all())
        assert bool((level.windows[:, 2:] <= parents[:, 2:] + 1e-12).all())
        shrunk = (level.windows[:, 2:] - level.windows[:, :2]) / (parents[:, 2:] - parents[:, :2])
        assert torch.allclose(
            shrunk.sort(dim=1).values, torch.tensor([0.75, 1.0], dtype=torch.float64).expand_as(shrunk)
        )


def test_a_shallower_search_is_part_of_a_deeper_one(net: GridClassifier, images: Tensor) -> None:
    deep, shallow = (BeamSearch(3, depth)(net, images, softmax) for depth in (5, 2))
    assert torch.equal(deep.heat(8, depth=2), shallow.heat(8))
    assert torch.equal(deep.best(2)[0], shallow.best()[0])


def test_windows_are_stretched_as_interpolation_does() -> None:
    grids = torch.randn(2, 3, 5, 5)
    regions = torch.tensor([[0, 0, 5, 5], [1, 0, 5, 4], [2, 3, 4, 4], [4, 4, 5, 5]], dtype=torch.float64)
    source = torch.tensor([0, 1, 1, 0])
    for row, (x0, y0, x1, y1) in enumerate(regions.int().tolist()):
        part = grids[source[row], None, :, y0:y1, x0:x1]
        wanted = F.interpolate(part, (5, 5), mode="bilinear", align_corners=True)
        assert torch.allclose(resample(grids, source, regions, 5)[row], wanted[0], atol=1e-5)


def test_children_are_stretched_as_any_windows_are() -> None:
    grids = torch.randn(3, 2, 4, 4)
    regions = (torch.tensor([0, 0, 4, 4]) + CHILDREN).double()
    wanted = [resample(grids, torch.full((4,), k), regions, 4) for k in range(3)]
    assert torch.allclose(resampled_children(grids), torch.stack(wanted), atol=1e-5)


def test_crops_of_many_sizes_and_images_in_any_order() -> None:
    images = torch.rand(4, 3, 24, 40)
    image, corner = torch.tensor([3, 0, 3, 1, 0, 3]), torch.rand(6, 2, dtype=torch.float64) / 2
    windows = torch.cat([corner, corner + torch.tensor([0.5, 0.1, 0.45, 0.3, 0.5, 0.2]).double()[:, None]], dim=1)
    together = crop_and_resize(images, image, windows, 6)
    assert together.is_contiguous(memory_format=torch.channels_last)
    for row in range(6):
        x0, y0, x1, y1 = windows[row].tolist()
        places = max(1, round(max(40 * (x1 - x0), 24 * (y1 - y0)) / 6))
        spots = (torch.arange(6 * places) + 0.5) / (6 * places)
        y, x = torch.meshgrid(2 * (y0 + (y1 - y0) * spots) - 1, 2 * (x0 + (x1 - x0) * spots) - 1, indexing="ij")
        sampled = F.grid_sample(
            images[image[row], None], torch.stack([x, y], -1)[None], padding_mode="border", align_corners=False
        )
        assert torch.allclose(together[row], F.avg_pool2d(sampled, places)[0], atol=1e-4)


def test_crops() -> None:
    images = torch.arange(2 * 3 * 8 * 12, dtype=torch.float32).view(2, 3, 8, 12)
    windows = torch.tensor([[0.0, 0.0, 1 / 3, 0.5], [0.5, 0.0, 0.75, 0.5], [0.0, 0.0, 1.0, 1.0]], dtype=torch.float64)
    crops = crop_and_resize(images, torch.tensor([1, 0, 1]), windows, 4)
    assert torch.allclose(crops[0], images[1, :, :4, :4])
    enlarged = F.interpolate(images[:1, :, :4, 6:9], (4, 4), mode="bilinear")[0]
    assert torch.allclose(crops[1][:, :, 1:3], enlarged[:, :, 1:3])  # but for its edges, which see what is outside
    assert torch.allclose(crops[2].mean(dim=(1, 2)), images[1].mean(dim=(1, 2)), atol=0.5)


def test_heat_by_hand() -> None:
    pairs = torch.tensor([[0, 1]])
    windows = torch.tensor([[0.0, 0.0, 0.5, 1.0], [0.25, 0.5, 0.75, 1.0]], dtype=torch.float64)
    none, scores = torch.zeros(2, dtype=torch.int64), torch.tensor([[0.0, 0.5], [0.0, 0.25]], dtype=torch.float64)
    root = Level(none[:1], windows[:1] * 0 + 1, none[:1], scores[:1], none[:1, None], 1)
    kept = torch.tensor([[0, 1, -1]])
    tree = SearchTree(pairs, torch.zeros(1, 2), [root, Level(none, windows, none, scores, kept, 0)])
    heat = tree.heat(2)
    assert heat[0, 0].abs().sum() == 0
    # the second window covers half of both lower cells
    assert heat[0, 1].tolist() == [[0.5, 0.0], [0.625, 0.125]]
    assert tree.survivors()[1].tolist() == [[0.5, 0.25, 0.0]]
    assert tree.best()[0].tolist() == [[0.0, 0.0, 0.5, 1.0]]
    assert SearchTree(pairs, torch.zeros(1, 2), [root]).heat(2).sum() == 0


def test_a_window_counts_once_by_its_best_score() -> None:
    scores = torch.tensor([[0.5], [0.9], [0.7], [0.6]])
    window = torch.tensor([5, 1, 5, 2])  # the first and the third are the same window, parts of different crops
    found = _best(torch.tensor([[0, 3, 1, 2], [-1, 0, -1, 3]]), scores, torch.tensor([0, 0]), window, 4)
    assert found.tolist() == [[1, 2, 3, -1], [3, 0, -1, -1]]


def test_ties_go_to_the_better_parent() -> None:
    scores, window = torch.tensor([[0.5], [0.9], [0.5]]), torch.arange(3)
    found = _best(torch.tensor([[2, 1, 0]]), scores, torch.tensor([0]), window, 3)
    assert found.tolist() == [[1, 2, 0]]


def test_classes_to_search(net: GridClassifier, images: Tensor) -> None:
    search = BeamSearch(2, 2)
    tree = search(net, images, softmax, 2)
    top = tree.scores.topk(2, dim=1).indices.sort(dim=1).values
    assert torch.equal(tree.pairs[:, 1].reshape(3, 2), top)
    assert bool((tree.heat(4).sum(dim=(2, 3)) > 0).sum(dim=1).eq(2).all())
    assert len(search(net, images, softmax, 99).pairs) == 12
    assert search(net, images, softmax, torch.zeros(3, 4, dtype=torch.bool)).heat(4).sum() == 0


@pytest.mark.parametrize("wrong", [{"width": 0}, {"depth": 0}, {"batch": 0}, {"depth": 61}])
def test_refused_settings(wrong: dict[str, int]) -> None:
    name, value = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=f"{name}={value}"):
        BeamSearch(**wrong)


def test_refused_images_and_classes(net: GridClassifier, images: Tensor) -> None:
    with pytest.raises(ValueError, match="56 x 31 pixels are smaller than the network's input of 32 x 32"):
        BeamSearch()(net, images[:, :, :31], softmax)
    with pytest.raises(ValueError, match="wanted=0"):
        BeamSearch()(net, images, softmax, 0)
    with pytest.raises(ValueError, match=r"bool \(3, 4\), got torch.int64 \(3, 4\)"):
        BeamSearch()(net, images, softmax, torch.ones(3, 4, dtype=torch.int64))
