"""What a network pools and which layer reads it: found in many networks, refused with the reason in others."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from wsolnb.inference.linear_head import LinearHead, read_linear
from wsolnb.models.cam import GlobalMaxPooling, classifier
from wsolnb.papers.bae2020.pooling import ThresholdedAveragePooling

SLOW_TO_INITIALISE = ("googlenet", "inception_v3", "vgg11")


def build(name: str) -> nn.Module:
    """A network with random weights, whose batch normalisations have statistics of their own."""
    if name.startswith("timm/"):
        net = timm.create_model(name.removeprefix("timm/"), pretrained=False)
    else:
        options = {"init_weights": False} if name in SLOW_TO_INITIALISE else {}
        net = torchvision.models.get_model(name, weights=None, **options)
    for each in net.modules():
        if isinstance(each, nn.BatchNorm2d):
            each.running_mean.normal_(0, 0.1)
            each.running_var.uniform_(0.5, 2)
    return net.eval()


class Toy(nn.Module):
    """A convolution, the given pooling, and the given head."""

    def __init__(self, pool: object, head: nn.Module | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.pool, self.head = pool, head or nn.Linear(6, 4)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.head(self.pool(self.conv(images)))  # type: ignore[operator]
        return output


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("resnet18", 512),
        ("mobilenet_v2", 1280),
        ("densenet121", 1024),
        ("googlenet", 1024),
        ("inception_v3", 2048),
        ("efficientnet_b0", 1280),
        ("shufflenet_v2_x1_0", 1024),
        ("mnasnet0_5", 1280),
        ("regnet_y_400mf", 440),
        ("convnext_tiny", 768),
        ("swin_t", 768),
        ("timm/resnet10t", 512),
        ("timm/efficientnet_b0", 1280),
        ("timm/convnext_atto", 320),
        ("timm/resnetv2_18", 512),
        ("timm/regnetx_002", 368),
        ("squeezenet1_1", 1000),
    ],
)
def test_the_mean_of_the_maps_is_the_networks_own_output(name: str, channels: int) -> None:
    net, images = build(name), torch.randn(2, 3, 128, 96)
    with torch.no_grad():
        reading, again, output = read_linear(net, images), read_linear(net, images), net(images)
        maps = torch.einsum("bdhw,cd->bchw", reading.features, reading.weight)
    assert reading.features.shape[:2] == (2, channels)
    assert (reading.scale is not None) == ("convnext" in name)
    if reading.scale is not None:
        maps = maps * reading.scale[:, None, None, None]
    torch.testing.assert_close(reading.outputs, output, rtol=0, atol=0)
    for name in ("features", "weight", "constant", "outputs"):
        assert torch.equal(getattr(again, name), getattr(reading, name)), name
    torch.testing.assert_close(maps.mean(dim=(2, 3)) + reading.constant, output, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vgg11", r"VGG flattens 512 x 7 x 7 features .* does not pool them"),
        ("alexnet", r"AlexNet flattens 256 x 6 x 6 features"),
        ("mobilenet_v3_small", r"'classifier.3' is not linear in the pooled features; between .*: linear, hardswish"),
        ("timm/mobilenetv3_small_050", r"'classifier' is not linear .*: conv2d, hardswish"),
        ("timm/repvit_m0_9", r"no linear layer .* after the pooling comes batch_norm, linear, add, div"),
    ],
)
def test_networks_without_an_exact_map_are_refused_with_the_reason(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_linear(build(name), torch.randn(1, 3, 128, 96))


def test_a_transformer_with_a_class_token_pools_nothing() -> None:
    net = torchvision.models.VisionTransformer(32, 16, 1, 2, 16, 32, num_classes=5).eval()
    message = (
        r"nothing is averaged .* in front of the head 'heads.head': it reads one of 5 x 16 tokens \(a class token\)"
    )
    with pytest.raises(ValueError, match=rf"{message}; what can be read: .*patch tokens.*class maps.*Classifier$"):
        read_linear(net, torch.rand(1, 3, 32, 32))


@pytest.mark.parametrize(
    "pool",
    [
        lambda x: x.mean((2, 3)),
        lambda x: x.mean(dim=[-1, -2]),
        lambda x: x.mean(axis=(2, 3)),
        lambda x: torch.mean(x, (2, 3), keepdim=True).squeeze(3).squeeze(2),
        lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1),
        lambda x: F.avg_pool2d(x, x.shape[2:]).view(len(x), -1),
        nn.Sequential(nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Dropout(0.5)),
        lambda x: x.permute(0, 2, 3, 1).mean((1, 2)),
        lambda x: x.view(*x.shape[:2], -1).mean(2),
        lambda x: x.flatten(2).transpose(1, 2).mean(1),
        lambda x: x.mean(-1).mean(-1),
        lambda x: x.mean(2).mean(2),
        lambda x: x.sum((2, 3)) / (x.shape[2] * x.shape[3]),
        lambda x: x.flatten(2).sum(2) / x[0, 0].numel(),
        lambda x: torch.einsum("bchw->bc", x) / (x.shape[2] * x.shape[3]),
        lambda x: torch.einsum("bdn,n->bd", x.flatten(2), torch.full((40,), 1 / 40)),
        lambda x: nn.AdaptiveAvgPool1d(1)(x.flatten(2)).squeeze(2),
        nn.Sequential(nn.Flatten(2), nn.AdaptiveAvgPool1d(1), nn.Flatten()),
    ],
    ids=["mean", "negative axes", "axis", "keepdim", "adaptive", "window", "modules and dropout", "channels last",
         "view", "tokens", "mean of means", "means of rows", "sum", "sum of cells", "einsum", "weights of einsum", "1D",
         "1D modules"],
)  # fmt: skip
@pytest.mark.parametrize("shown", [True, False], ids=["features of a layer", "features of a function"])
def test_every_way_to_write_a_global_average_is_known(pool: object, shown: bool) -> None:
    net, images = Toy(pool if shown else lambda x: pool(x.sin())), torch.randn(2, 3, 5, 8)  # type: ignore[operator]
    reading, features = read_linear(net, images), net.conv(images).detach()
    torch.testing.assert_close(reading.features, features if shown else features.sin())
    assert torch.equal(reading.weight, net.head.weight)
    assert torch.equal(reading.constant, net.head.bias)


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        (lambda x: x.amax((2, 3)), "nothing is averaged over all cells"),
        (lambda x: F.avg_pool2d(x, 2).amax((2, 3)), "nothing is averaged"),
        (lambda x: x[:, :, 2, 3], r"in front of the head 'head': it reads one"),
        (lambda x: F.avg_pool2d(x, (5, 7), padding=(0, 1), stride=9).flatten(1), r"'head' is not linear"),
        (lambda x: F.avg_pool2d(x, (5, 7), divisor_override=1).flatten(1), r"'head' is not linear"),
        (lambda x: F.avg_pool2d(x, (5, 6), stride=9).flatten(1), r"'head' is not linear"),
        (lambda x: x.mean((2, 3)).mul_(2), r"'head' is not linear .* mul"),
        (lambda x: F.relu(x.mean((2, 3)), inplace=True), r"'head' is not linear .* relu"),
        (lambda x: x.mean((2, 3)).relu(), r"'head' is not linear in the pooled features; between the two: relu"),
        (lambda x: F.normalize(x.mean((2, 3))), r"'head' is not linear .* normalize"),
        (lambda x: x.mean((2, 3)) * 2, r"'head' is not linear .* mul"),
    ],
    ids=[
        "maximum",
        "small window",
        "one cell",
        "padded window",
        "sum",
        "part",
        "doubled in place",
        "relu in place",
        "relu",
        "unit length",
        "doubled",
    ],
)
def test_other_poolings_are_refused(pool: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_linear(Toy(pool), torch.randn(2, 3, 5, 7))


def test_a_convolution_of_one_cell_is_a_linear_head() -> None:
    net = Toy(nn.AdaptiveAvgPool2d(1), nn.Sequential(nn.Conv2d(6, 4, 1, bias=False), nn.Flatten()))
    reading = read_linear(net, torch.randn(2, 3, 5, 7))
    assert torch.equal(reading.weight, net.head[0].weight[:, :, 0, 0])  # type: ignore[index]
    assert reading.constant.tolist() == [0, 0, 0, 0]


def test_layer_normalisation_by_hand() -> None:
    net = Toy(lambda x: x.mean((2, 3)), nn.Sequential(nn.LayerNorm(6, eps=0.1), nn.Linear(6, 4)))
    norm, linear = net.head[0], net.head[1]  # type: ignore[index]
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2, -1, 0.5, 3, 1]))
        norm.bias.copy_(torch.tensor([0.1, -0.2, 0.3, 0, 1, -1]))
    images = torch.randn(2, 3, 5, 7)
    reading = read_linear(net, images)
    pooled = net.conv(images).mean((2, 3)).detach().double()
    spread = (((pooled - pooled.mean(1, keepdim=True)) ** 2).mean(1) + 0.1).sqrt()
    assert reading.scale is not None
    torch.testing.assert_close(reading.scale.double(), 1 / spread)
    weighted = linear.weight.detach() * norm.weight.detach()
    torch.testing.assert_close(reading.weight, weighted - weighted.mean(1, keepdim=True))
    torch.testing.assert_close(reading.constant, (linear.bias + linear.weight @ norm.bias).detach())


def test_normalisation_over_more_than_the_channels_is_refused() -> None:
    net = Toy(lambda x: x.mean((2, 3)), nn.Sequential(nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 4)))
    with pytest.raises(ValueError, match=r"'head.2' is not linear .*: layer_norm, tanh"):
        read_linear(net, torch.randn(2, 3, 5, 7))


class TwoHeads(nn.Module):
    """Two linear layers on the same pooled features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.species, self.family = nn.Conv2d(3, 6, 3), nn.Linear(6, 4), nn.Linear(6, 2)
        self.idle = nn.Linear(6, 3)
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        pooled = self.conv(images).mean((2, 3))
        return self.species(pooled), self.family(pooled)


def test_of_two_heads_one_must_be_named() -> None:
    net, images = TwoHeads(), torch.randn(2, 3, 5, 8)
    with pytest.raises(
        ValueError, match=r"linear layers read the pooled features \('species', 'family'\).*returns a tup"
    ):
        read_linear(net, images)
    assert read_linear(net, images, "family").outputs.shape == (2, 2)
    assert torch.equal(read_linear(net, images, "species").weight, net.species.weight)
    with pytest.raises(ValueError, match="no layer 'specie'; close: species"):
        read_linear(net, images, "specie")
    with pytest.raises(ValueError, match="head 'conv' did not read one vector per image"):
        read_linear(net, images, "conv")
    with pytest.raises(ValueError, match="head 'idle' did not read"):
        read_linear(net, images, "idle")


def test_an_output_that_is_not_the_heads_own_needs_the_heads_name() -> None:
    net, images = Toy(lambda x: x.mean((2, 3)), nn.Sequential(nn.Linear(6, 4), nn.Softmax(1))), torch.randn(1, 3, 5, 7)
    with pytest.raises(ValueError, match=r"a linear layer reads .*\('head.0'\), and the model changes what they give"):
        read_linear(net, images)
    torch.testing.assert_close(read_linear(net, images, "head.0").outputs.softmax(1), net(images))
    with pytest.raises(ValueError, match=r"the head 'head\.1' is no linear layer but Softmax"):
        read_linear(net, images, "head.1")


def test_a_single_cell_is_nothing_to_localize_in() -> None:
    with pytest.raises(ValueError, match="pools a single cell"):
        read_linear(Toy(lambda x: x.mean((2, 3))), torch.randn(1, 3, 1, 1))


def test_numbers_that_are_none_are_named() -> None:
    images = torch.randn(3, 3, 5, 8)
    images[1, 0, 2, 2] = torch.nan
    net = Toy(lambda x: x.mean((2, 3)))
    with pytest.raises(ValueError, match="image 1 in this batch holds NaN"):
        read_linear(net, images)
    read_linear(net, images[2:])


@pytest.mark.parametrize("pool", [ThresholdedAveragePooling(0.1), GlobalMaxPooling()])
def test_the_packages_own_classifier_may_pool_as_it_likes(pool: nn.Module) -> None:
    net, images = classifier("tiny", 5, pool=pool).eval(), torch.rand(2, 3, 32, 48)
    reading = read_linear(net, images)
    torch.testing.assert_close(reading.features, net.features(images).detach())
    torch.testing.assert_close(reading.outputs, net(images).detach())
    with pytest.raises(ValueError, match="has one head, 'head', and no 'fc'"):
        read_linear(net, images, "fc")


class Counted(Toy):
    """Counts its passes."""

    passes = 0

    def __init__(self, head: nn.Module | None = None) -> None:
        super().__init__(lambda x: x.mean((2, 3)), head)

    def forward(self, images: Tensor) -> Tensor:
        self.passes += 1
        return super().forward(images)


class Rectified(Counted):
    """Its features are changed in place after the layer that gives them."""

    def forward(self, images: Tensor) -> Tensor:
        self.passes += 1
        output: Tensor = self.head(F.adaptive_avg_pool2d(F.relu(self.conv(images), inplace=True), 1).flatten(1))
        return output


class PoolLayer(Counted):
    """Its features are made by a function, and pooled by a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.average = nn.AdaptiveAvgPool2d(1)

    def forward(self, images: Tensor) -> Tensor:
        self.passes += 1
        output: Tensor = self.head(self.average(F.relu(self.conv(images))).flatten(1))
        return output


class FunctionalFeatures(Counted):
    """Its features are made and pooled by functions, so that no layer sees them."""

    def forward(self, images: Tensor) -> Tensor:
        self.passes += 1
        output: Tensor = self.head(F.relu(self.conv(images)).mean((2, 3)))
        return output


class FunctionalHead(Counted):
    """Its head's weights are used without calling the layer."""

    def forward(self, images: Tensor) -> Tensor:
        self.passes += 1
        return F.linear(self.conv(images).mean((2, 3)), self.head.weight, self.head.bias)  # type: ignore[arg-type]


class MapAfterwards(Counted):
    """Another map is computed between its pooling and its head."""

    def forward(self, images: Tensor) -> Tensor:
        self.passes += 1
        pooled = self.conv(images).mean((2, 3))
        self.conv(-images)
        output: Tensor = self.head(pooled)
        return output


class Cosine(nn.Linear):
    """Not linear in what it is given, whatever its class says."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(F.normalize(input), F.normalize(self.weight))


def photos(seed: int = 0) -> Tensor:
    return torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(seed))


def same(one: LinearHead, other: LinearHead) -> bool:
    pairs = [(getattr(one, name), getattr(other, name)) for name in ("features", "weight", "constant", "outputs")]
    scales = one.scale is other.scale if one.scale is None else torch.equal(one.scale, other.scale)  # type: ignore[arg-type]
    return scales and all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("net", "passes"),
    [
        (Counted, 1),
        (Rectified, 1),
        (PoolLayer, 1),
        (lambda: Counted(nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 4))), 1),
        (lambda: Counted(nn.Sequential(nn.Dropout(), nn.Linear(6, 4, bias=False))), 1),
        (lambda: Counted(nn.Sequential(nn.Unflatten(1, (6, 1, 1)), nn.Conv2d(6, 4, 1), nn.Flatten())), 1),
        (FunctionalFeatures, 2),
        (FunctionalHead, 2),
        (MapAfterwards, 2),
    ],
    ids=[
        "mean",
        "in place",
        "pooling layer",
        "layer normalisation",
        "dropout",
        "convolution",
        "functional features",
        "functional head",
        "a map afterwards",
    ],
)
def test_one_pass_suffices_where_layers_show_features_and_head(net: type[Counted], passes: int) -> None:
    model = net()
    first = read_linear(model, photos())
    assert same(read_linear(model, photos()), first)
    other = read_linear(model, photos(1))
    assert model.passes == 3 * passes
    assert not torch.equal(other.features, first.features)
    assert torch.equal(other.outputs, model(photos(1)))
    pooled = other.features.mean((2, 3))
    if other.scale is not None:
        pooled = pooled * other.scale[:, None]
    torch.testing.assert_close(pooled @ other.weight.T + other.constant, other.outputs)


def test_a_head_that_was_exchanged_is_read_as_it_is_now() -> None:
    model = Counted()
    read_linear(model, photos())
    with torch.no_grad():
        model.head.weight.mul_(2)  # type: ignore[operator]
    assert torch.equal(read_linear(model, photos()).weight, model.head.weight)
    model.head = nn.Linear(6, 9)
    reading = read_linear(model, photos())
    assert torch.equal(reading.weight, model.head.weight)
    assert torch.equal(reading.outputs, model(photos()))
    model.head = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    with pytest.raises(ValueError, match=r"the head 'head\.2' is not linear in the pooled features; .*: linear, relu"):
        read_linear(model, photos())
    model.head = Cosine(6, 4)
    with pytest.raises(ValueError, match="is not linear in the pooled features; between the two: normalize"):
        read_linear(model, photos())
    del model.head
    model.head = nn.Identity()
    with pytest.raises(ValueError, match="no linear layer reads pooled features"):
        read_linear(model, photos())


def test_something_new_between_the_same_layers_is_noticed() -> None:
    model, power = Counted(), 1.0
    model.pool = lambda x: x.mean((2, 3)) if power == 1 else x.mean((2, 3)).pow(power)
    read_linear(model, photos())
    power = 2.0
    with pytest.raises(ValueError, match="is not linear in the pooled features; between the two: pow"):
        read_linear(model, photos())
    power = 1.0
    assert torch.equal(read_linear(model, photos()).outputs, model(photos()))


def test_no_hook_is_left_even_after_an_error() -> None:
    model = Counted()
    for images in (photos(), photos(), torch.randn(2, 5, 5, 7)):  # the last has too many channels
        with pytest.raises(RuntimeError, match="channels") if images.shape[1] == 5 else nullcontext():
            read_linear(model, images)
        assert not any(layer._forward_hooks for layer in model.modules())
        assert not torch.nn.modules.module._global_forward_hooks


def test_threads_that_share_a_model_do_not_see_each_others_passes() -> None:
    model = Counted()
    expected = [read_linear(model, photos(seed)) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda seed: read_linear(model, photos(seed % 8)), range(200)))
    assert all(same(head, expected[seed % 8]) for seed, head in enumerate(found))


def test_a_model_is_not_kept_alive() -> None:
    model = Counted()
    read_linear(model, photos())
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


class Output(nn.Module):
    """A classifier whose logits are given back in another form."""

    def __init__(self, form: object, classes: int = 4) -> None:
        super().__init__()
        self.net, self.form = Toy(lambda x: x.mean((2, 3)), nn.Linear(6, classes)), form
        self.eval()

    def forward(self, images: Tensor) -> object:
        return self.form(self.net(images))  # type: ignore[operator]


@pytest.mark.parametrize(
    "form",
    [lambda y: {"loss": None, "logits": y}, lambda y: SimpleNamespace(logits=y, hidden_states=None)],
    ids=["dictionary", "object"],
)
def test_logits_in_an_output_object_are_read(form: object) -> None:
    net = Output(form)
    assert torch.equal(read_linear(net, photos()).outputs, net.net(photos()))


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("head", [None, "net.head"])
@pytest.mark.parametrize("form", [lambda y: y.squeeze(1), lambda y: y.squeeze(), lambda y: y[:, 0]])
def test_one_squeezed_logit_is_read(form: object, head: str | None, batch: int) -> None:
    net, images = Output(form, classes=1), photos()[:batch]
    reading = read_linear(net, images, head)
    assert reading.outputs.shape == (batch, 1)
    torch.testing.assert_close(reading.features.mean((2, 3)) @ reading.weight.T + reading.constant, net.net(images))


def test_a_batch_normalisation_in_front_of_the_head_by_hand() -> None:
    neck = nn.BatchNorm1d(6)
    with torch.no_grad():
        neck.running_mean.normal_(), neck.running_var.uniform_(0.5, 2), neck.weight.normal_(), neck.bias.normal_()
    net = Toy(lambda x: x.mean((2, 3)), nn.Sequential(neck, nn.Linear(6, 4, bias=False)))
    reading, linear = read_linear(net, photos()), net.head[1]  # type: ignore[index]
    gain = neck.weight / (neck.running_var + neck.eps).sqrt()
    torch.testing.assert_close(reading.weight, (linear.weight * gain).detach())
    torch.testing.assert_close(reading.constant, (linear.weight @ (neck.bias - gain * neck.running_mean)).detach())
    assert reading.scale is None


@pytest.mark.parametrize("rectified", [False, True])
def test_class_maps_that_are_averaged_are_read(rectified: bool) -> None:
    maps = nn.Sequential(nn.Conv2d(6, 4, 1), *([nn.ReLU(inplace=True)] if rectified else []), nn.AdaptiveAvgPool2d(1))
    net = Toy(maps, nn.Flatten())
    reading = read_linear(net, photos())
    own = net.pool[:-1](net.conv(photos()))  # type: ignore[index]
    bias = 0 if rectified else net.pool[0].bias[:, None, None]  # type: ignore[index]
    found = torch.einsum("bdhw,cd->bchw", reading.features, reading.weight)
    torch.testing.assert_close(found + bias, own)
    torch.testing.assert_close(reading.outputs, own.mean((2, 3)))


@pytest.mark.parametrize(
    "head",
    [
        nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 4)),
        nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 4)),
        nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 4)),
    ],
)
def test_a_layer_normalisation_after_a_hidden_layer_is_refused_in_one_line(head: nn.Module) -> None:
    with pytest.raises(
        ValueError, match=r"the head 'head\.\d' is not linear .*: .*linear.*; what can be read: "
    ) as info:
        read_linear(Toy(lambda x: x.mean((2, 3)), head), photos())
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("others", [0, 1, 5])
@pytest.mark.parametrize("order", ["tokens", "channels"])
def test_patch_tokens_lie_on_the_grid_of_the_patches(others: int, order: str) -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.head = nn.Conv2d(3, 6, 4, 4), nn.Linear(6, 4)
            self.first = nn.Parameter(torch.randn(1, 6, others))

        def forward(self, images: Tensor) -> Tensor:
            cells = torch.cat([self.first.expand(len(images), -1, -1), self.patches(images).flatten(2)], 2).tanh()
            tokens = cells.transpose(1, 2) * 1.5
            pooled = tokens[:, others:].mean(1) if order == "tokens" else (cells * 1.5)[:, :, others:].mean(2)
            output: Tensor = self.head(pooled)
            return output

    net, images = Tokens().eval(), torch.randn(2, 3, 12, 20)
    reading = read_linear(net, images)
    torch.testing.assert_close(reading.features, net.patches(images).tanh().detach() * 1.5)


@torch.no_grad()
def test_a_pointwise_layers_maps_are_let_go_when_more_is_learned_after_them() -> None:
    first, last = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3)
    layers = [first, nn.BatchNorm2d(6), last, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)]
    born: list[weakref.ref[Tensor]] = []
    alive: list[bool] = []
    first.register_forward_hook(lambda module, given, result: born.append(weakref.ref(result)))
    last.register_forward_hook(lambda module, given, result: alive.append(born[0]() is not None))
    read_linear(nn.Sequential(*layers).eval(), photos())
    assert alive == [False]
