"""One small member of each family of classifiers with random weights, and what a reading of it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import timm
import torch
import torchvision
from torch import Tensor, nn

from wsolnb.inference.linear_head import FORMS, LinearHead, read_linear

CLASSES = 5
REPLACE = "replace its end by global average pooling and one linear layer, and train that"
Layout = Callable[[Tensor], Tensor]
Made = tuple[nn.Module, Layout, bool]  # a layer, its output seen as a feature map, whether that is tokens


def network(library: str, name: str) -> nn.Module:
    """A network by name with random weights; batch normalisations have statistics of their own, no head is zero."""
    torch.manual_seed(0)
    if library == "timm":
        name, _, pool = name.partition(" ")
        options = {"global_pool": pool} if pool else {}
        net = timm.create_model(name, pretrained=False, num_classes=CLASSES, **options)
    elif library == "transformers":
        net = _from_transformers(name)
    else:
        options = {"init_weights": False} if name in ("googlenet", "inception_v3", "vgg11") else {}
        net = torchvision.models.get_model(name, weights=None, num_classes=CLASSES, **options)
    for each in net.modules():
        if isinstance(each, nn.BatchNorm1d | nn.BatchNorm2d) and each.running_mean is not None:
            each.running_mean.normal_(0, 0.1)
            each.running_var.uniform_(0.5, 2)
        weight = getattr(each, "weight", None)
        if isinstance(each, nn.Linear) and isinstance(weight, nn.Parameter) and not weight.any():
            nn.init.normal_(weight, 0, 0.05)
    return net.eval()


def _from_transformers(name: str) -> nn.Module:
    """An image classifier of Hugging Face's, as small as its configuration allows."""
    import transformers

    config = transformers.AutoConfig.for_model(name, num_labels=CLASSES)
    for key, small in {
        "num_hidden_layers": 2,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_attention_heads": 4,
    }.items():
        if isinstance(getattr(config, key, None), int) and not hasattr(config, "hidden_sizes"):
            setattr(config, key, small)
    return transformers.AutoModelForImageClassification.from_config(config)


def read(net: nn.Module, images: Tensor) -> LinearHead | str:
    """The reading, or in what words it is refused, without the remedy."""
    try:
        with torch.no_grad():
            return read_linear(net, images)
    except ValueError as error:
        message = str(error)
        assert "\n" not in message
        remedies = (FORMS, "name one with head=", REPLACE)
        assert message.endswith(remedies), message
        return next(message.removesuffix(f"; {each}") for each in remedies if message.endswith(each))


def described(reading: LinearHead | str) -> str:
    """What the table says of a reading."""
    if isinstance(reading, str):
        return f"no: {reading}"
    _, channels, height, width = reading.features.shape
    norm = ", then a layer normalisation" if reading.scale is not None else ""
    return f"yes: {height} x {width} cells of {channels} channels{norm}"


def outputs(net: nn.Module, images: Tensor) -> Tensor:
    """The network's own logits."""
    with torch.no_grad():
        result = net(images)
    return result if isinstance(result, Tensor) else result.logits


def _layouts(output: Tensor, grid: tuple[int, ...]) -> Iterator[Layout]:
    """Ways to see a layer's output as a feature map."""
    if output.ndim == 4:
        yield lambda x: x
        yield lambda x: x.permute(0, 3, 1, 2)
        yield lambda x: x.relu() if x.is_floating_point() else x
    elif output.ndim == 3:
        cells = grid[0] * grid[1]
        yield lambda x: x[:, -cells:].transpose(1, 2).unflatten(2, grid)
        yield lambda x: x[:, :, -cells:].unflatten(2, grid)


def where_features_are_made(net: nn.Module, images: Tensor, features: Tensor) -> Made:
    """The last layer that gives the features, found by comparing all outputs."""
    found: list[Made] = []

    def compare(module: nn.Module, args: object, output: object) -> None:
        if not isinstance(output, Tensor) or output.ndim < 3:
            return
        for layout in _layouts(output, tuple(features.shape[2:])):
            try:
                seen = layout(output)
            except RuntimeError:
                continue
            if seen.shape == features.shape and torch.equal(seen, features):
                found.append((module, layout, output.ndim == 3))
                return

    handles = [each.register_forward_hook(compare) for each in net.modules()]
    outputs(net, images)
    for handle in handles:
        handle.remove()
    assert found, "no layer gives the features"
    return found[-1]


def without_a_cell(net: nn.Module, images: Tensor, made: Made, cell: tuple[int, int]) -> Tensor:
    """The network's logits where the features of one cell are set to zero on the way."""
    module, layout, _ = made

    def erase(module: nn.Module, args: object, output: Tensor) -> Tensor:
        numbers = layout(torch.arange(output.numel()).view(output.shape))
        changed = output.clone().flatten()
        changed[numbers[:, :, *cell].flatten()] = 0
        return changed.view(output.shape)

    handle = module.register_forward_hook(erase)
    try:
        return outputs(net, images)
    finally:
        handle.remove()
