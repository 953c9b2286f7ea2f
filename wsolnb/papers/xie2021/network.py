"""ORNet: a map from low-level features, refined against an evaluator (xie2021, https://arxiv.org/abs/2110.05741).

    stage one   image -> shallow stages -> f -> generator -> p;  p · f -> the other stages -> class scores
    stage two   image -> shallow stages -> f -> generator -> p;  p · image -> frozen evaluator -> class scores
    inference   image -> shallow stages -> f -> generator -> p

The map `p` is the same for all classes; the evaluator names the class, from the unmasked image.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsolnb.models.backbones import Backbone, backbone
from wsolnb.models.cam import Classifier, GlobalAveragePooling
from wsolnb.papers.xie2021.losses import Coarse, Refined

SHALLOW = {
    "tiny": "block1",
    "resnet18": "stem",
    "resnet50": "stem",
    "resnet50_se": "stem",
    "mobilenet_v1": "block2",
    "mobilenet_v2": "block2",
    "vgg16": "block2",
    "vgg16_gap": "block2",
    "googlenet": "stem",
    "googlenet_gap": "stem",
}
"""Default stage that the generator reads: the released code's in ResNet-50 (stride 4), corresponding ones elsewhere."""

TRAINABLE = ("generator.up2", "generator.up3", "generator.attend")
"""Parts that stage two trains, as in the released code; the paper leaves it open."""

M = TypeVar("M", bound=nn.Module)


class Generator(nn.Module):
    """Activation map generator: encoder-decoder, convolution, batch normalisation, sigmoid (xie2021 Eqs. 2 and 4).

    The encoder halves the features three times, to 2, 4 and 8 times `width` channels (default: `channels`); the decoder
    doubles them again with skip connections, as in the released code. Its last features `f^a` have one channel per
    class. They give the map, `p = sigmoid(BN(conv3x3(f^a)))`, and the scores of the generator's own head,
    `GAP(conv1x1(f^a))`. (Eq. 2 ends with the normalisation, but Eqs. 12 to 16 need probabilities.)

    Raises:
        ValueError: If one of the numbers is below 1.

    Example:
        >>> evidence, maps = Generator(24, classes=5, width=8)(torch.rand(2, 24, 20, 28))
        >>> evidence.shape, maps.shape
        (torch.Size([2, 5, 20, 28]), torch.Size([2, 1, 20, 28]))
    """

    def __init__(self, channels: int, classes: int, width: int | None = None) -> None:
        super().__init__()
        width = channels if width is None else width
        for name, value in (("channels", channels), ("classes", classes), ("width", width)):
            if value < 1:
                raise ValueError(f"a generator needs at least one of {name}, got {value}")
        self.classes = classes
        self.down1, self.down2, self.down3 = (
            nn.Sequential(nn.MaxPool2d(2), *_double(before, after))
            for before, after in ((channels, 2 * width), (2 * width, 4 * width), (4 * width, 8 * width))
        )
        self.up1, self.up2, self.up3 = (
            nn.Sequential(*_double(before, after))
            for before, after in ((12 * width, 4 * width), (6 * width, 3 * width), (3 * width + channels, classes))
        )
        self.attend = nn.Sequential(nn.Conv2d(classes, 1, 3, padding=1, bias=False), nn.BatchNorm2d(1))
        self.side = nn.Conv2d(classes, classes, 1, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Low-level features `(B, D, h, w)` to `f^a`, `(B, C, h, w)`, and maps in [0, 1], `(B, 1, h, w)`.

        Raises:
            ValueError: If the features are too small to be halved three times.
        """
        if min(features.shape[2:]) < 8:
            size = " x ".join(map(str, features.shape[2:]))
            raise ValueError(
                f"features of {size} cells cannot be halved three times: take an earlier stage or larger images"
            )
        half = self.down1(features)
        quarter = self.down2(half)
        evidence = self.up1(_beside(quarter, self.down3(quarter)))
        evidence = self.up3(_beside(features, self.up2(_beside(half, evidence))))
        return evidence, self.attend(evidence).float().sigmoid()

    def side_scores(self, evidence: Tensor) -> Tensor:
        """Class scores `(B, C)` of the generator's own head (xie2021 Eq. 4)."""
        return self.side(evidence).mean(dim=(2, 3))


class StageOne(nn.Module):
    """Stage one: a classifier whose low-level features are masked by the map generated from them.

    Stages up to and with `stage` (default: the backbone's entry in `SHALLOW`) are `F_1`, the others `F_2`.

    Raises:
        ValueError: If the backbone lacks the stage, has none in `SHALLOW`, or none after it.

    Example:
        >>> net = StageOne(backbone("tiny"), classes=12, width=8)
        >>> net.maps(torch.rand(2, 3, 64, 96)).shape
        torch.Size([2, 1, 32, 48])
    """

    new_parts = ("head", "generator")

    def __init__(self, backbone: Backbone, classes: int, stage: str | None = None, width: int | None = None) -> None:
        super().__init__()
        self.stage = _stage(backbone, stage)
        self.backbone = backbone
        self.generator = Generator(backbone.channels[self.stage], classes, width)
        self.pool = GlobalAveragePooling()
        self.head = nn.Linear(backbone.out_channels, classes)

    def forward(self, images: Tensor) -> Coarse:
        """Class scores of both heads, for RGB images in [0, 1], `(B, 3, H, W)` (xie2021 Eqs. 1 to 4)."""
        features = self.backbone.stage_features(images, self.stage)[self.stage]
        evidence, maps = self.generator(features)
        features = features * maps
        for name in _deeper(self.backbone, self.stage):
            features = self.backbone.stages[name](features)
        return Coarse(self.head(self.pool(features)), self.generator.side_scores(evidence))

    def maps(self, images: Tensor) -> Tensor:
        """Activation maps `(B, 1, h, w)` in [0, 1], from shallow stages and generator."""
        return self.generator(self.backbone.stage_features(images, self.stage)[self.stage])[1]


class StageTwo(nn.Module):
    """Stage two: the map is refined so that a frozen evaluator still sees the class in the masked image (Eqs. 7 to 9).

    Shallow stages and generator are copies of stage one's, which can start several refinements. Only `trainable` parts
    change in training, the others keep their batch statistics too. The mask acts on the normalised image, as in the
    released code: masked pixels become the mean colour.

    Args:
        evaluator: A trained classifier, `frozen`.
        erasing: Erases a part of the map while training (`wsolnb.papers.xie2021.erasing.Erasing`); None: no erasing.
        trainable: Parts that are trained, such as `generator` or `shallow.stages.block1`.

    Raises:
        ValueError: If the evaluator can learn, its number of classes is not the generator's, or there is no such part.

    Example:
        >>> evaluator = frozen(Classifier(backbone("tiny"), outputs=12))
        >>> net = StageTwo(StageOne(backbone("tiny"), classes=12, width=8), evaluator).train()
        >>> net(torch.rand(2, 3, 64, 96)).scores.shape
        torch.Size([2, 12])
        >>> sorted({name.split(".")[1] for name, each in net.named_parameters() if each.requires_grad})
        ['attend', 'up2', 'up3']
    """

    new_parts = ("generator",)

    def __init__(
        self,
        first: StageOne,
        evaluator: Classifier,
        erasing: nn.Module | None = None,
        trainable: Sequence[str] = TRAINABLE,
    ) -> None:
        super().__init__()
        if loose := [name for name, each in evaluator.named_parameters() if each.requires_grad]:
            raise ValueError(f"the evaluator must be frozen (see frozen), but {loose[0]} can learn")
        if (known := evaluator.head.out_features) != first.generator.classes:
            raise ValueError(f"the evaluator knows {known} classes, the generator {first.generator.classes}")
        self.stage, self.trainable = first.stage, tuple(trainable)
        self.shallow = _until(first.backbone, first.stage)
        self.generator = copy.deepcopy(first.generator)
        self.evaluator = evaluator
        self.erasing = erasing or nn.Identity()
        self.requires_grad_(False)
        for part in self._learning():
            part.requires_grad_(True)
        self.train(first.training)

    def _learning(self) -> list[nn.Module]:
        parts = dict(self.named_modules())
        fitting = [name for name in parts if name.split(".")[0] in ("shallow", "generator")]
        if unknown := [name for name in self.trainable if name not in fitting]:
            raise ValueError(f"stage two has no part {unknown[0]!r} to train; it has {', '.join(fitting[:40])}")
        return [parts[name] for name in self.trainable]

    def forward(self, images: Tensor) -> Refined:
        """The evaluator's scores of masked images, and the maps before erasing, for RGB images in [0, 1]."""
        evidence, maps = self.generator(self.shallow(images))
        return Refined(self.evaluator(self.masked(images, self.erasing(maps))), maps, evidence)

    def masked(self, images: Tensor, maps: Tensor) -> Tensor:
        """Fade images `(B, 3, H, W)` to the evaluator's mean colour where maps `(B, 1, h, w)` are 0."""
        network = self.evaluator.backbone
        colour = network.mean.flip(0) if network.bgr else network.mean
        return colour + (images - colour) * F.interpolate(maps, images.shape[2:], mode="nearest")

    def maps(self, images: Tensor) -> Tensor:
        """Activation maps `(B, 1, h, w)` in [0, 1], from shallow stages and generator."""
        return self.generator(self.shallow(images))[1]

    def classify(self, images: Tensor) -> Tensor:
        """The evaluator's class scores `(B, C)` of the images as they are, without any map."""
        return self.evaluator(images)

    def train(self, mode: bool = True) -> StageTwo:
        """Set training mode of the trained parts and the erasing only."""
        super().train(False)
        if mode:
            self.training = True
            for part in (*self._learning(), self.erasing):
                part.train()
        return self


def stage_one(
    name: str, classes: int, *, stage: str | None = None, width: int | None = None, seed: int = 0, **options: Any
) -> StageOne:
    """Build stage one on a backbone by name, with the same random weights for the same seed.

    `stage` is as for `StageOne`, `width` as for `Generator`, name and other options as for
    `wsolnb.models.backbones.backbone`. The global random state is unchanged.

    Example:
        >>> stage_one("resnet18", 5, stride=16).stage
        'stem'
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return StageOne(backbone(name, **options), classes, stage, width)


def frozen(model: M) -> M:
    """Freeze a model in place: evaluation mode, no gradients for its weights.

    Example:
        >>> net = frozen(nn.Linear(2, 3))
        >>> net.training, net.weight.requires_grad
        (False, False)
    """
    return model.requires_grad_(False).eval()


def _double(before: int, after: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for channels in (before, after):
        layers += [nn.Conv2d(channels, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.LeakyReLU(0.01)]
    return layers


def _beside(skip: Tensor, small: Tensor) -> Tensor:
    """Upsample the smaller features to the size of the skip connection, and concatenate."""
    return torch.cat([skip, F.interpolate(small, skip.shape[2:], mode="bilinear", align_corners=False)], dim=1)


def _stage(network: Backbone, stage: str | None) -> str:
    known = list(network.stages)
    if stage is None and network.name not in SHALLOW:
        raise ValueError(f"no shallow stage of {network.name} is known: choose one of {', '.join(known)}")
    chosen = SHALLOW[network.name] if stage is None else stage
    if chosen not in known:
        raise ValueError(f"{network.name} has no stage {chosen!r}; its stages are {', '.join(known)}")
    if chosen == known[-1]:
        raise ValueError(f"{chosen!r} is the last stage of {network.name}: no stage is left to see the masked features")
    return chosen


def _deeper(network: Backbone, stage: str) -> list[str]:
    names = list(network.stages)
    return names[names.index(stage) + 1 :]


def _until(network: Backbone, stage: str) -> Backbone:
    """A copy of a backbone that ends with the given stage."""
    shallow = copy.deepcopy(network)
    for name in _deeper(network, stage):
        del shallow.stages[name], shallow.channels[name], shallow.strides[name]
    return shallow
