"""Trains under torchrun, or in one process, and writes the results to JSON: the script of the distributed tests."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from wsolnb._utils.whole_batch import gather
from wsolnb.data.readers.images import SkipUnreadable, UnreadableImage
from wsolnb.losses import CrossEntropy, MultiLabelCrossEntropy
from wsolnb.papers.bae2020.masking import AttentionDropout, HideAndSeek
from wsolnb.papers.kou2021.coaug import Parts, coaug_loss
from wsolnb.papers.kou2021.sampler import ClassBalanced
from wsolnb.papers.xie2021.erasing import Erasing
from wsolnb.train import Plan, train

IMAGES, CLASSES = 23, 3  # the last batch of 4 leaves nothing for the second process


class Noise(Dataset[Any]):
    """Images determined by their index."""

    labels = torch.arange(IMAGES) % CLASSES

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(index))
        return image + self.labels[index] / 5, int(self.labels[index])


class Augmented(Noise):
    """Noise with more noise, new in every epoch."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image, label = super().__getitem__(index)
        return image + 0.1 * torch.rand(3, 1, 1), label


class Several(Noise):
    """Noise with a label for every class, of which those of some images are unknown."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, Any]:
        image, label = super().__getitem__(index)
        known = torch.eye(CLASSES)[label]
        return image, known.masked_fill(torch.arange(CLASSES) < index % 4, float("nan"))


class Torn(Noise):
    """Noise with two images that do not decode."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if index in (4, 9):
            raise UnreadableImage(f"number {index} does not decode")
        return super().__getitem__(index)


class Net(nn.Module):
    """A few weights."""

    def __init__(self, normalised: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, CLASSES)
        self.norm = nn.BatchNorm2d(4) if normalised else nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.conv(images)).relu().mean((2, 3)))


class Drawing(Net):
    """A few weights, behind all that draws at random."""

    def __init__(self) -> None:
        super().__init__()
        self.hide, self.drop, self.erase = HideAndSeek(2), AttentionDropout(0.5), Erasing()
        self.cells, self.windows = nn.Dropout(0.3), nn.Dropout(0.3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.cells(self.drop(self.conv(self.hide(images)).relu()))
        features = features * self.erase(features.mean(dim=1, keepdim=True).sigmoid())
        windows = self.windows(features.flatten(2).transpose(1, 2).flatten(0, 1))  # several rows of each image
        return self.head(windows).unflatten(0, (len(images), -1)).amax(dim=1)


class Pairs(CrossEntropy):
    """Cross-entropy, and a loss of all pairs of a batch."""

    def forward(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        parts = Parts(*(gather(values) for values in (outputs, outputs.roll(1, 1), outputs.tanh())))
        return super().forward(outputs, labels) + 0.1 * coaug_loss(parts, gather(labels))


class Stopped(CrossEntropy):
    """A loss that interrupts the training before its third epoch, once."""

    done = False

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        if epoch == 2 and not self.done:
            self.done = True
            raise InterruptedError("stopped")


def run(
    batch_size: int,
    accumulate: int = 1,
    balanced: bool = False,
    normalised: bool = False,
    stop: bool = False,
    torn: bool = False,
    drawn: bool = False,
    pairs: bool = False,
    compiled: bool = False,
    unknown: bool = False,
) -> dict[str, Any]:
    """Train three epochs; if `stop`, interrupted once and resumed."""
    data: Any = SkipUnreadable(Torn()) if torn else Augmented() if drawn else Several() if unknown else Noise()
    net = Drawing() if drawn else Net(normalised)
    sampler = ClassBalanced(Noise.labels, 3 * batch_size, CLASSES) if balanced else None
    options: Any = {"device": "cpu", "precision": "32-true", "accumulate": accumulate, "batches": sampler}
    options["compile"] = compiled
    plan, objective = Plan(3, batch_size, lr=0.2), Stopped() if stop else Pairs() if pairs else CrossEntropy()
    objective = MultiLabelCrossEntropy("sigmoid") if unknown else objective
    with suppress(InterruptedError):
        done = train(net, data, objective, plan, **options)
    if stop:
        net = Drawing() if drawn else Net(normalised)
        done = train(net, data, objective, plan, **options)
    weights = torch.cat([value.flatten().float() for value in net.state_dict().values()]).tolist()
    assert done.weights is not None
    return {"history": done.history, "weights": weights, "cached": done.cached, "key": done.weights.stem}


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.compile = partial(torch.compile, backend="eager")  # type: ignore[assignment]
    rank = os.environ.get("RANK", "alone")
    for name, settings in json.loads(sys.argv[2]).items():
        Path(sys.argv[1], f"{name}-{rank}.json").write_text(json.dumps(run(**settings)))
