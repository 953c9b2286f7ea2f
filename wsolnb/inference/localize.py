"""Maps, boxes and scores of any classes from a trained classifier, by the methods that need no training of their own.

model, images -> one forward pass -> features and linear head -> maps of the requested classes -> boxes
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsolnb.boxes import BoxRule
from wsolnb.inference.linear_head import LinearHead, read_linear
from wsolnb.localization.detect import choose_classes, class_indices, detection_rows
from wsolnb.models.cam import class_activation_maps
from wsolnb.papers.barz2022.maps import class_scores, dense_class_embeddings, similarity_maps

RULES: dict[str, BoxRule] = {
    "cam": BoxRule.preset("cam"),
    "nwc": BoxRule.preset("cam"),
    "pas": replace(BoxRule.preset("cam"), reference="percentile", percentile=90.0, threshold=0.35),
    "nwc+pas": replace(BoxRule.preset("cam"), reference="percentile", percentile=90.0, threshold=0.35),
    "dcm": BoxRule.preset("dcm"),
}
"""The methods and their default box rules."""


@torch.no_grad()
def localize(
    model: nn.Module,
    images: Tensor | Sequence[Tensor],
    method: str = "cam",
    classes: str | int | Sequence[Any] | Tensor = 1,
    rule: BoxRule | str | None = None,
    *,
    head: str | None = None,
    embeddings: Tensor | None = None,
) -> list[dict[str, Tensor]]:
    """Localize classes in images with a trained classifier.

    Methods, with `ψ` the features that the network pools and `W` its linear head:

    - ``"cam"``: class activation maps `M_k = W_k · ψ_ij`, without the bias (bae2020 Eq. 2).
    - ``"nwc"``: the same with negative weights set to zero (bae2020 Eq. 5), which the paper derives for features that
      are never negative, as after a ReLU (not ConvNeXt, Swin).
    - ``"pas"``: ``"cam"``, cut at a fraction of a percentile in place of the maximum (bae2020 Eq. 6).
    - ``"nwc+pas"``: both.
    - ``"dcm"``: dense class maps, `<(W·ψ_ij + b) / ‖W·ψ_ij + b‖, φ(c)>` (barz2022 Eqs. 6 to 8), for networks trained
      with the cosine loss.

    A layer normalisation between pooling and head (ConvNeXt) divides by the spread `σ` of the pooled features, one
    number per image, so that `M_k = (W_k ⊙ γ - mean) · ψ_ij / σ`. The mean of a ``"cam"`` map over its cells is the
    network's own output less a constant of the class.

    Args:
        model: A classifier of torchvision, timm, Hugging Face or one's own that averages features over all cells, or
            tokens over all patches, and gives the averages to one linear layer, with at most a layer or batch
            normalisation between; one that averages class maps; or a `wsolnb.models.cam.Classifier`. `networks.md`
            beside this file lists networks tried. In evaluation mode, on any device.
            It is left as it was.
        images: Normalised as the model was trained: float `(B, 3, H, W)`, or a list of `(3, H, W)` of any sizes. Moved
            to the model's device. `torch.autocast` applies to the network.
        method: One of `RULES`.
        classes: An int k: the k best-scored classes of each image. A list of class indices: these, for every image. An
            int tensor or nested list `(B, K)`: a row per image. ``"all"``: all.
        rule: A `BoxRule` or the name of a preset; by default that of `RULES`.
        head: Name of the linear layer, where there are several.
        embeddings: Class embeddings `φ`, unit rows `(C, E)`, of a network trained with the cosine loss; scores are then
            cosine similarities. None for softmax, and for one-hot embeddings with ``"dcm"``.

    Returns:
        For each image, in the format of torchvision's detectors, on the device of the model: `boxes` `(n, 4)` xyxy in
        pixels of the input, far corner exclusive; `scores` `(n,)` (softmax; sigmoid for a single output; cosine
        similarity with embeddings; barz2022 Eq. 8 for ``"dcm"``); `labels` int64 `(n,)`; and `maps` `(n, h, w)` at
        feature resolution. One row per box, in the order of the classes, float32 (scores and maps of a float64 model:
        float64). A class in whose map the rule finds nothing keeps its row, with a box of NaN, or of the whole image
        where the rule has ``empty="image"``. Rules that give several boxes repeat label, score and map.

    Raises:
        ValueError: The model is in training mode, compiled or scripted; images require a gradient; the head is not
            linear in pooled features, or ambiguous; an unknown method, class, rule or head.
        TypeError: Images are not floating point or not in the precision of the model.

    Example:
        >>> import torchvision
        >>> net = torchvision.models.resnet18().eval()
        >>> results = localize(net, torch.rand(2, 3, 96, 64), classes=5)
        >>> {name: tuple(values.shape) for name, values in results[0].items()}
        {'boxes': (5, 4), 'scores': (5,), 'labels': (5,), 'maps': (5, 3, 2)}
    """
    rule = box_rule(method, rule)
    _check_model(model)
    if isinstance(images, Tensor):
        return _localize_batch(model, images, method, classes, rule, head, embeddings) if len(images) else []
    return _localize_list(model, images, method, classes, rule, head, embeddings)


def _check_model(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"the model must be a torch.nn.Module, not {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule) or hasattr(model, "_orig_mod"):
        kind = "compiled" if hasattr(model, "_orig_mod") else "scripted"
        raise ValueError(f"a {kind} model hides its layers: give the plain model that it was made from")
    if isinstance(model, torch.fx.GraphModule) and getattr(model.eval, "__func__", None) is not nn.Module.eval:
        raise ValueError(
            "a module of torch.export hides its layers and has no evaluation mode: give the plain model that it was "
            "exported from"
        )
    training = next((name or "the model" for name, module in model.named_modules() if module.training), None)
    if training is not None:
        raise ValueError(f"{training} is in training mode, where maps depend on chance and batch: call model.eval()")


def _localize_list(model: nn.Module, images: Sequence[Tensor], method: str, classes: Any, *rest: Any) -> list[Any]:
    """Localize images of any sizes, those of one size together; results in the order of the images."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, image in enumerate(images):
        if not isinstance(image, Tensor) or image.ndim != 3:
            raise ValueError(f"image {index} of the list must be a tensor (3, H, W), not {_shape(image)}")
        groups.setdefault(tuple(image.shape), []).append(index)
    rows = None if isinstance(classes, str | int) else torch.as_tensor(class_indices(classes))
    if rows is not None and rows.ndim == 2 and len(rows) != len(images):
        raise ValueError(f"classes has {len(rows)} rows for {len(images)} images")
    results: list[Any] = [None] * len(images)
    for indices in groups.values():
        chosen = classes if rows is None or rows.ndim != 2 else rows[indices]
        batch = torch.stack([images[i] for i in indices])
        for index, result in zip(indices, _localize_batch(model, batch, method, chosen, *rest), strict=True):
            results[index] = result
    return results


def _localize_batch(
    model: nn.Module, images: Tensor, method: str, classes: Any, rule: BoxRule, head: str | None, embeddings: Any
) -> list[dict[str, Tensor]]:
    if images.ndim != 4:
        raise ValueError(f"images must be a batch (B, 3, H, W) or a list of (3, H, W), not {_shape(images)}")
    if images.requires_grad:
        raise ValueError("images ask for a gradient, but maps and boxes are made without: give images.detach()")
    weight = next(model.parameters(), None)
    if weight is None:
        raise ValueError(f"{type(model).__name__} has no parameters, so no linear head")
    if not images.is_floating_point():
        raise TypeError(f"images are {images.dtype}; give float images, normalised as the model was trained with")
    device = weight.device.type
    if images.dtype != weight.dtype and not torch.is_autocast_enabled(device):
        raise TypeError(f"images are {images.dtype}, the model {weight.dtype}: convert one, or use torch.autocast")
    linear = read_linear(model, images.to(weight.device, non_blocking=True), head)
    with torch.autocast(device, enabled=False):
        maps, scores, labels = _read(linear, method, classes, embeddings)
        return detection_rows(maps, scores, labels, rule, (images.shape[2], images.shape[3]))


def _read(linear: LinearHead, method: str, classes: Any, embeddings: Tensor | None) -> tuple[Tensor, ...]:
    """Maps, scores and labels, `(B, K, h, w)`, `(B, C)` and `(B, K)`, of the requested classes."""
    dtype = torch.promote_types(linear.features.dtype, torch.float32)
    features, weight = linear.features.to(dtype), linear.weight.to(dtype)
    outputs, constant = linear.outputs.to(dtype), linear.constant.to(dtype)
    if embeddings is not None:
        if embeddings.ndim != 2 or embeddings.shape[1] != len(weight):
            raise ValueError(f"embeddings {_shape(embeddings)} do not fit a head with {len(weight)} outputs")
        embeddings = F.normalize(embeddings.to(weight), dim=1)
    if method == "dcm":
        if linear.scale is not None:
            features = features * linear.scale[:, None, None, None]
        similar = dense_class_embeddings(features, weight, constant)
        if embeddings is not None:
            similar = similarity_maps(similar, embeddings)
        scores = class_scores(similar)
        labels = choose_classes(classes, scores)
        return similar.gather(1, labels[:, :, None, None].expand(-1, -1, *similar.shape[2:])), scores, labels
    if embeddings is None:
        scores = outputs.softmax(dim=1) if outputs.shape[1] > 1 else outputs.sigmoid()
        labels = choose_classes(classes, outputs)
    else:
        scores = F.normalize(outputs, dim=1) @ embeddings.T
        labels, weight = choose_classes(classes, scores), embeddings @ weight
    if "nwc" in method:
        weight = weight.clamp(min=0)
    if isinstance(classes, str):
        maps = class_activation_maps(features, weight)
    else:
        maps = torch.bmm(weight[labels], features.flatten(2)).unflatten(2, features.shape[2:])
    return maps if linear.scale is None else maps * linear.scale[:, None, None, None], scores, labels


def box_rule(method: str, rule: BoxRule | str | None = None) -> BoxRule:
    """The box rule of a method of `RULES`: its default, a preset by name, or the given one.

    Raises:
        ValueError: If there is no such method or preset, or they do not go together.

    Example:
        >>> box_rule("pas").threshold, box_rule("cam", "dcm").threshold
        (0.35, 0.06)
    """
    if method not in RULES:
        hint = ": it is how a network pools while it is trained; train one so and read it as cam" * (method == "tap")
        raise ValueError(f"no readout {method!r}{hint}; choose one of {', '.join(RULES)}")
    rule = RULES[method] if rule is None else BoxRule.preset(rule) if isinstance(rule, str) else rule
    if "pas" in method and rule.reference != "percentile":
        raise ValueError(f"{method!r} cuts at a percentile, but the rule's reference is {rule.reference!r}")
    return rule


def _shape(value: Any) -> str:
    return f"{tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
