"""Batches in parts: large ones that do not fit into memory, with the step of a whole one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mean_colour import MeanColour
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from wsolnb.losses import CrossEntropy
from wsolnb.papers.bae2020.masking import HideAndSeek
from wsolnb.papers.kou2021.sampler import ClassBalanced
from wsolnb.train import Plan, train

DATA = TensorDataset(torch.rand(12, 3, 5, 7, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 4)


@pytest.fixture(autouse=True)
def _empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSOLNB_CACHE", str(tmp_path))


@pytest.mark.parametrize("accumulate", [2, 3, 8])
def test_a_batch_in_parts_gives_the_step_of_a_whole_one(accumulate: int) -> None:
    some = TensorDataset(*(values[:11] for values in DATA.tensors))  # the last batch of an epoch has 3 images: 2 and 1
    whole, parted, seen = MeanColour(4), MeanColour(4), []
    plan, options = Plan(3, 4, lr=0.5, clip=0.3), {"device": "cpu", "precision": "32-true"}
    a = train(whole, some, CrossEntropy(), plan, **options)  # type: ignore[arg-type]
    parted.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    b = train(parted, some, CrossEntropy(), plan, accumulate=accumulate, **options)  # type: ignore[arg-type]
    epoch = {2: [2, 2, 2, 2, 2, 1], 3: [2, 1, 1, 2, 1, 1, 1, 1, 1], 8: [1] * 11}[accumulate]
    assert seen == 3 * epoch
    assert torch.allclose(whole.head.weight, parted.head.weight, atol=1e-6)
    assert [r["loss"] for r in a.history] == pytest.approx([r["loss"] for r in b.history], abs=1e-6)
    assert [r["accuracy"] for r in a.history] == [r["accuracy"] for r in b.history]
    assert not torch.allclose(whole.head.weight, MeanColour(4).head.weight, atol=1e-3)


class Once(Dataset[Any]):
    """Colours that are new in every epoch; image number 3 stops the training, once."""

    def __init__(self) -> None:
        self.stopped = False

    def __len__(self) -> int:
        return 11

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        if index == 3 and not self.stopped:
            self.stopped = True
            raise InterruptedError
        return DATA[index][0] * torch.rand(3, 1, 1), DATA[index][1]


@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_what_is_drawn_is_of_the_whole_batch_and_goes_on_after_a_stop(
    accumulate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last batch of an epoch has a single image."""
    monkeypatch.setattr("wsolnb.train.loop.SAVE_EVERY", 0.0)
    whole, parted = (nn.Sequential(HideAndSeek(2), nn.Dropout(0.4), MeanColour(4)) for _ in range(2))
    plan, options = Plan(3, 5, lr=0.5), {"device": "cpu", "precision": "32-true"}
    data = Once()
    data.stopped = True
    train(whole, data, CrossEntropy(), plan, **options)  # type: ignore[arg-type]
    data.stopped = False
    with pytest.raises(InterruptedError):
        train(parted, data, CrossEntropy(), plan, accumulate=accumulate, retrain=True, **options)  # type: ignore[arg-type]
    assert {type(layer) for layer in parted} == {HideAndSeek, nn.Dropout, MeanColour}
    parted = nn.Sequential(HideAndSeek(2), nn.Dropout(0.4), MeanColour(4))
    train(parted, data, CrossEntropy(), plan, accumulate=accumulate, **options)  # type: ignore[arg-type]
    assert torch.allclose(whole[2].head.weight, parted[2].head.weight, atol=1e-6)


def test_a_batch_has_at_least_one_part() -> None:
    with pytest.raises(ValueError, match="accumulate=0: must be at least 1"):
        train(MeanColour(4), DATA, CrossEntropy(), Plan(1), accumulate=0)


def test_a_balanced_batch_is_parted_between_classes() -> None:
    """So that a loss of pairs still finds images of one class in a part."""

    class Recording(CrossEntropy):
        def __init__(self) -> None:
            super().__init__()
            self.parts: list[list[int]] = []

        def __call__(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            self.parts.append(labels.bincount(minlength=4).tolist())
            return super().__call__(outputs, labels)

    recording, batches = Recording(), ClassBalanced(DATA.tensors[1], 8, 4)
    train(MeanColour(4), DATA, recording, Plan(1, 8), batches=batches, device="cpu", accumulate=2)
    assert len(recording.parts) == 4
    assert all(sorted(part) == [0, 0, 2, 2] for part in recording.parts)
