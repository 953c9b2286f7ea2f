"""What each strategy of erasing may and may not put out, on maps that are not square."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from wsolnb.papers.xie2021.erasing import STRATEGIES, Erasing


def blob(height: int = 9, width: int = 14) -> Tensor:
    """Two maps: a bright rectangle of rows 2 to 6 and columns 3 to 10, brightest at (4, 9); and a bright corner."""
    maps = torch.full((2, 1, height, width), 0.1)
    maps[0, 0, 2:7, 3:11] = 0.8
    maps[0, 0, 4, 9] = 0.95
    maps[1, 0, -2:, -1:] = 0.9
    return maps


def bounds(mask: Tensor) -> tuple[int, int, int, int]:
    y, x = mask.nonzero(as_tuple=True)
    return int(y.min()), int(y.max()), int(x.min()), int(x.max())


def test_threshold_erases_all_that_is_bright() -> None:
    dropped = Erasing("threshold", threshold=(0.5, 0.5)).dropped(blob())
    assert torch.equal(dropped, blob() > 0.6)


def test_threshold_lies_between_lowest_and_highest_value_of_each_map() -> None:
    maps = torch.tensor([[[[0.0, 0.4, 0.6, 1.0]]], [[[0.5, 0.54, 0.56, 0.6]]]])
    dropped = Erasing("threshold", threshold=(0.5, 0.5)).dropped(maps)
    assert dropped[:, 0, 0].tolist() == [[False, False, True, True], [False, False, True, True]]


def test_threshold_is_drawn_for_each_image() -> None:
    torch.manual_seed(0)
    ramp = torch.linspace(0, 1, 101).expand(400, 1, 1, 101)
    lowest = 101 - Erasing("threshold").dropped(ramp).sum(dim=3).flatten()
    assert int(lowest.min()) in range(50, 53)
    assert int(lowest.max()) in range(99, 102)
    assert float(lowest.float().mean()) == pytest.approx(75.5, abs=2)


def test_rectangle_stays_around_the_peak_and_inside_the_bright_region() -> None:
    torch.manual_seed(1)
    maps = blob()[:1].expand(300, 1, 9, 14)
    dropped = Erasing("rectangle", threshold=(0.5, 0.5)).dropped(maps)[:, 0]
    assert bool(dropped[:, 4, 9].all()), "the peak itself is always among the candidates"
    assert not bool((dropped & (maps[:, 0] < 0.6)).any())
    sizes = set()
    for mask in dropped:
        top, bottom, left, right = bounds(mask)
        assert int(mask.sum()) == (bottom - top + 1) * (right - left + 1), "a full rectangle"
        assert 4 - top <= 2
        assert bottom - 4 <= 2
        assert 9 - left <= 4, "half of the region's 8 columns"
        sizes.add((bottom - top, right - left))
    assert len(sizes) > 6, "height and width are random, each by itself"


def test_rectangle_never_takes_the_whole_object_here_but_threshold_does() -> None:
    torch.manual_seed(2)
    maps = blob()[:1].expand(200, 1, 9, 14)
    bright = maps > 0.6
    assert torch.equal(Erasing("threshold", threshold=(0.5, 0.5)).dropped(maps), bright)
    assert not bool((Erasing("rectangle", threshold=(0.5, 0.5)).dropped(maps) == bright).all(dim=(1, 2, 3)).any())


def test_attentive_drops_half_of_the_candidates() -> None:
    torch.manual_seed(3)
    maps = torch.ones(1, 1, 60, 90)
    maps[..., :1] = 0
    erasing = Erasing(threshold=(0.5, 0.5))
    shares = []
    for seed in range(20):
        torch.manual_seed(seed)
        dropped = erasing.dropped(maps.roll(45, dims=3))
        if int(dropped.sum()) > 200:
            top, bottom, left, right = bounds(dropped[0, 0])
            shares.append(float(dropped[0, 0, top : bottom + 1, left : right + 1].float().mean()))
    assert shares
    assert sum(shares) / len(shares) == pytest.approx(0.5, abs=0.05)


def test_every_candidate_is_dropped_at_the_given_rate_whatever_its_value() -> None:
    torch.manual_seed(4)
    maps = torch.zeros(3000, 1, 1, 3)
    maps[..., 1], maps[..., 2] = 0.75, 1.0
    dropped = Erasing("attentive", rate=0.3, threshold=(0.5, 0.5)).dropped(maps).float()
    assert float(dropped[..., 0].mean()) == 0
    assert float(dropped[..., 2].mean()) == pytest.approx(0.3, abs=0.03)


def test_random_rectangles_go_anywhere_and_are_no_larger_than_half() -> None:
    torch.manual_seed(6)
    dropped = Erasing("random").dropped(torch.rand(2000, 1, 9, 14))[:, 0]
    hit = dropped.float().mean(dim=0)
    assert float(hit.min()) > 0
    assert float(hit[3:-3, 4:-4].min()) > 0.5 * float(hit.max())
    for mask in dropped[:200]:
        top, bottom, left, right = bounds(mask)
        assert int(mask.sum()) == (bottom - top + 1) * (right - left + 1)
        assert bottom - top + 1 <= 5
        assert right - left + 1 <= 7


def test_batch_gives_what_single_images_give_in_shape_and_bounds() -> None:
    maps = torch.rand(5, 1, 7, 12)
    for strategy in STRATEGIES:
        dropped = Erasing(strategy).dropped(maps)
        assert dropped.shape == maps.shape
        assert dropped.dtype == torch.bool


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(sorted(STRATEGIES)), st.integers(1, 9), st.integers(1, 13), st.floats(0, 1))
def test_flat_and_tiny_maps_do_no_harm(strategy: str, height: int, width: int, value: float) -> None:
    maps = torch.full((3, 1, height, width), value)
    erased = Erasing(strategy)(maps)
    assert erased.shape == maps.shape
    if strategy != "random":
        assert torch.equal(erased, maps), "a flat map has no bright region"


def test_works_while_training_only_and_leaves_its_argument() -> None:
    torch.manual_seed(7)
    erasing, maps = Erasing("threshold"), blob()
    before = maps.clone()
    assert not torch.equal(erasing(maps), maps)
    assert torch.equal(maps, before)
    assert torch.equal(erasing.eval()(maps), maps)


def test_gradients_flow_through_kept_pixels_only() -> None:
    maps = blob().requires_grad_()
    Erasing("threshold", threshold=(0.5, 0.5))(maps).sum().backward()
    assert maps.grad is not None
    assert torch.equal(maps.grad, (maps.detach() <= 0.6).float())


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown erasing 'attentiv'; known: random, threshold"):
        Erasing("attentiv")
    with pytest.raises(ValueError, match=r"threshold's range must rise within \[0, 1\], got \(0.7, 0.5\)"):
        Erasing(threshold=(0.7, 0.5))
    with pytest.raises(ValueError, match=r"rate must lie between 0 and 1, got 1\.5"):
        Erasing(rate=1.5)
    with pytest.raises(ValueError, match=r"got \(2, 3, 8, 8\)"):
        Erasing().dropped(torch.rand(2, 3, 8, 8))
