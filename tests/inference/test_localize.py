"""Maps, boxes and scores from one's own network: by hand, and what is refused."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import wsolnb
from wsolnb.boxes import BoxRule
from wsolnb.inference.localize import RULES, localize
from wsolnb.localization.detect import choose_classes
from wsolnb.models.cam import classifier
from wsolnb.papers.bae2020.pooling import ThresholdedAveragePooling
from wsolnb.papers.barz2022.maps import class_scores, dense_class_embeddings, similarity_maps

WEIGHT = torch.tensor([[2.0, -1.0, 0.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 3.0], [0.5, 0.5, -2.0]])
BIAS = torch.tensor([0.0, 0.5, -0.25, 1.0])


class Glass(nn.Module):
    """Pools its input as it is: what is given are the features."""

    def __init__(self, weight: Tensor = WEIGHT, bias: Tensor = BIAS) -> None:
        super().__init__()
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(weight.shape[1], weight.shape[0])
        self.fc.weight, self.fc.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.fc(self.pool(images).flatten(1))
        return output


def features() -> Tensor:
    """Two images of 2 x 4 cells, 3 channels: a block in channel 0, one in channel 2, both in channel 1."""
    cells = torch.zeros(2, 3, 2, 4)
    cells[0, 0, 0, :2] = 4.0
    cells[0, 1] = 1.0
    cells[1, 2, :, 3] = 2.0
    cells[1, 1, 0, 0] = 8.0
    return cells


def test_cam_by_hand() -> None:
    first, second = localize(Glass(), features(), "cam", [0, 2], BoxRule(0.5))
    assert first["labels"].tolist() == [0, 2]
    assert first["maps"][0].tolist() == [[7, 7, -1, -1], [-1, -1, -1, -1]]
    assert first["boxes"][0].tolist() == [0, 0, 2, 1]
    assert first["boxes"][1].isnan().all()  # class 2 has no positive cell here
    assert second["maps"][1].tolist() == [[0, 0, 0, 6], [0, 0, 0, 6]]
    assert second["boxes"][1].tolist() == [3, 0, 4, 2]
    logits = Glass()(features())
    for row, each in zip(logits.softmax(1), (first, second), strict=True):
        torch.testing.assert_close(each["scores"], row[[0, 2]].detach())
    assert {name: values.dtype for name, values in first.items()} == {
        "boxes": torch.float32, "scores": torch.float32, "labels": torch.int64, "maps": torch.float32
    }  # fmt: skip


def test_negative_weights_are_clamped() -> None:
    (found, _) = localize(Glass(), features(), "nwc", [0, 3])
    assert found["maps"][0].tolist() == [[8, 8, 0, 0], [0, 0, 0, 0]]
    assert found["maps"][1].tolist() == [[2.5, 2.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]]


def test_a_percentile_stands_in_for_the_maximum() -> None:
    ramp = torch.arange(1.0, 13.0).reshape(1, 1, 3, 4).repeat(1, 3, 1, 1)
    net = Glass(torch.tensor([[1.0, 0, 0]]), torch.zeros(1))
    coarse = replace(RULES["pas"], resize=None, percentile=50.0, threshold=1.0)
    assert localize(net, ramp, "pas", 1, coarse)[0]["boxes"].tolist() == [[0, 1, 4, 3]]  # above the median 6.5
    assert localize(net, ramp, "cam", 1, BoxRule(0.99))[0]["boxes"].tolist() == [[3, 2, 4, 3]]
    both = localize(Glass(), features(), "nwc+pas", [0], coarse)
    assert torch.equal(both[0]["maps"], localize(Glass(), features(), "nwc", [0])[0]["maps"])
    with pytest.raises(ValueError, match="'pas' cuts at a percentile, but the rule's reference is 'maximum'"):
        localize(net, ramp, "pas", rule="cam")


def test_dense_class_maps_are_those_of_the_papers_functions() -> None:
    images, embeddings = torch.randn(2, 3, 4, 5), F.normalize(torch.randn(6, 4), dim=1)
    sim = similarity_maps(dense_class_embeddings(images, WEIGHT, BIAS), embeddings)
    found = localize(Glass(), images, "dcm", "all", embeddings=embeddings)
    torch.testing.assert_close(torch.stack([each["maps"] for each in found]), sim)
    torch.testing.assert_close(torch.stack([each["scores"] for each in found]), class_scores(sim))
    torch.testing.assert_close(torch.stack([each["boxes"] for each in found]), BoxRule.preset("dcm")(sim, (4, 5)),
                               equal_nan=True)  # fmt: skip
    onehot = localize(Glass(), images, "dcm", "all")
    eye = localize(Glass(), images, "dcm", "all", embeddings=3 * torch.eye(4))
    torch.testing.assert_close(onehot[1]["maps"], eye[1]["maps"])


def test_with_embeddings_maps_and_scores_are_those_of_the_classes() -> None:
    images, embeddings = torch.randn(2, 3, 4, 5), F.normalize(torch.randn(6, 4), dim=1)
    found = localize(Glass(), images, "cam", "all", embeddings=embeddings)
    cells = torch.einsum("bdhw,ed,ce->bchw", images, WEIGHT, embeddings)
    torch.testing.assert_close(found[1]["maps"], cells[1])
    cosine = F.normalize(Glass()(images), dim=1) @ embeddings.T
    torch.testing.assert_close(found[0]["scores"], cosine[0].detach())
    with pytest.raises(ValueError, match=r"embeddings \(6, 5\) do not fit a head with 4 outputs"):
        localize(Glass(), images, embeddings=torch.ones(6, 5))


@pytest.mark.parametrize("method", ["cam", "nwc", "dcm"])
def test_layer_normalisation_reads_the_same_as_the_layer_at_every_cell(method: str) -> None:
    net = torchvision.models.convnext_tiny(num_classes=7).eval()
    images = torch.randn(2, 3, 64, 96)
    norm, linear = net.classifier[0], net.classifier[2]
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    nn.init.normal_(linear.bias)
    with torch.no_grad():
        cells = net.features(images)
        pooled = cells.mean((2, 3))
        scale = (pooled.var(1, correction=0) + norm.eps).rsqrt()[:, None, None, None]
        weight = linear.weight * norm.weight
        weight = weight - weight.mean(1, keepdim=True)
        if method == "nwc":
            weight = weight.clamp(min=0)
        expected = torch.einsum("bdhw,cd->bchw", cells, weight) * scale
        if method == "dcm":
            expected = F.normalize(expected + (linear.weight @ norm.bias + linear.bias)[:, None, None], dim=1)
    found = localize(net, images, method, "all")
    torch.testing.assert_close(torch.stack([each["maps"] for each in found]), expected, rtol=1e-4, atol=1e-4)


def test_every_choice_of_classes_reads_the_same_maps() -> None:
    net, images = torchvision.models.resnet18(num_classes=9).eval(), torch.randn(3, 3, 64, 96)
    everything = localize(net, images, classes="all")
    best = localize(net, images, classes=4)
    some = localize(net, images, classes=torch.tensor([7, 2]))
    own = localize(net, images, classes=[[0, 1], [8, 5], [3, 4]])
    with torch.no_grad():
        scores = net(images).softmax(1)
    for index, each in enumerate(everything):
        assert each["labels"].tolist() == list(range(9))
        assert best[index]["labels"].tolist() == scores[index].argsort(descending=True)[:4].tolist()
        assert some[index]["labels"].tolist() == [7, 2]
        assert own[index]["labels"].tolist() == [[0, 1], [8, 5], [3, 4]][index]
        for part in (best, some, own):
            labels = part[index]["labels"]
            for name in ("boxes", "scores", "labels", "maps"):
                torch.testing.assert_close(part[index][name], each[name][labels], rtol=1e-4, atol=1e-5, equal_nan=True)


def test_rules_with_several_boxes_give_every_class_a_row() -> None:
    first, second = localize(Glass(), features(), "cam", [1, 2], BoxRule(0.0, component="all", connectivity=4))
    assert first["labels"].tolist() == [1, 2]
    assert first["boxes"][0].tolist() == [0, 0, 4, 2]
    assert first["boxes"][1].isnan().all()
    assert second["labels"].tolist() == [1, 2]
    cells = torch.zeros(1, 3, 3, 5)
    cells[0, 1, 0, 0] = cells[0, 1, 2, 3] = cells[0, 2, 1, 2] = 1.0
    (found,) = localize(Glass(), cells, "cam", [2, 0, 1], BoxRule(0.5, component="all"))
    assert found["labels"].tolist() == [2, 0, 1, 1]
    assert found["boxes"][[0, 2, 3]].tolist() == [[2, 1, 3, 2], [0, 0, 1, 1], [3, 2, 4, 3]]
    assert found["boxes"][1].isnan().all()
    assert torch.equal(found["scores"][2], found["scores"][3])
    assert torch.equal(found["maps"][2], found["maps"][3])
    assert found["maps"].shape == (4, 3, 5)


def test_images_of_any_sizes_come_back_in_their_order() -> None:
    net = torchvision.models.resnet18(num_classes=5).eval()
    images = [torch.randn(3, 64, 96), torch.randn(3, 96, 64), torch.randn(3, 64, 96)]
    rows = [[0, 1], [2, 3], [4, 0]]
    found = localize(net, images, classes=rows)
    for image, row, each in zip(images, rows, found, strict=True):
        (alone,) = localize(net, image[None], classes=row)
        assert each["labels"].tolist() == row
        for name in ("boxes", "scores", "maps"):
            torch.testing.assert_close(each[name], alone[name], rtol=1e-4, atol=1e-5, equal_nan=True)
    assert localize(net, []) == localize(net, torch.empty(0, 3, 64, 96)) == []


def test_the_model_is_as_it_was() -> None:
    net = torchvision.models.resnet18(num_classes=5).eval()
    net.fc.weight.grad = torch.ones_like(net.fc.weight)
    before = copy.deepcopy(net)
    images = torch.rand(2, 3, 64, 96)
    kept = images.clone()
    found = localize(net, images, classes="all")
    assert torch.equal(images, kept)
    for (name, one), other in zip(net.state_dict().items(), before.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    assert torch.equal(net.fc.weight.grad, torch.ones_like(net.fc.weight))
    for each in net.modules():
        assert not each._forward_hooks
        assert not each._forward_pre_hooks
        assert not each._backward_hooks
        assert not each.training
    assert torch.is_grad_enabled()
    assert not any(values.requires_grad or values.is_inference() for values in found[0].values())


@pytest.mark.parametrize(("name", "last"), [("resnet18", "layer4"), ("convnext_tiny", "features.7.2.block.5")])
def test_under_autocast_the_network_runs_in_half_precision_and_results_are_float32(name: str, last: str) -> None:
    net, images = torchvision.models.get_model(name, num_classes=5).eval(), torch.rand(2, 3, 64, 96)
    exact = localize(net, images, classes="all")
    seen: list[torch.dtype] = []
    handle = net.get_submodule(last).register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = localize(net, images, classes="all")
        assert torch.is_autocast_enabled("cpu")
    handle.remove()
    assert seen == [torch.bfloat16]
    for one, other in zip(exact, rough, strict=True):
        assert other["maps"].dtype == other["scores"].dtype == torch.float32
        torch.testing.assert_close(one["maps"], other["maps"], rtol=0.1, atol=0.1)
        assert not torch.equal(one["maps"], other["maps"])


@pytest.mark.parametrize(("dtype", "result"), [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)])
def test_other_precisions(dtype: torch.dtype, result: torch.dtype) -> None:
    net = Glass().to(dtype)
    net.pool = nn.Sequential(net.pool, nn.Flatten(), nn.LayerNorm(3, dtype=dtype)).eval()
    found = localize(net, features().to(dtype), classes="all")
    assert found[0]["maps"].dtype == found[0]["scores"].dtype == result
    with pytest.raises(TypeError, match=f"images are torch.float16, the model {dtype}"):
        localize(net, torch.rand(1, 3, 64, 96).half())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_device_results_stay_there() -> None:
    net, images = torchvision.models.resnet18(num_classes=5).eval(), torch.rand(2, 3, 64, 96)
    exact = localize(net, images, classes="all")
    found = localize(net.cuda(), images, classes="all")
    assert all(values.is_cuda for values in found[0].values())
    torch.testing.assert_close(found[1]["maps"].cpu(), exact[1]["maps"], rtol=1e-2, atol=1e-2)


def test_the_packages_own_classifier_is_read_whatever_it_pools_with() -> None:
    net = classifier("tiny", 5, pool=ThresholdedAveragePooling(0.2)).eval()
    images = torch.rand(2, 3, 32, 48)
    found = localize(net, images, "nwc", "all")
    with torch.no_grad():
        expected = torch.einsum("bdhw,cd->bchw", net.features(images), net.head.weight.clamp(min=0))
    torch.testing.assert_close(found[1]["maps"], expected[1], rtol=1e-4, atol=1e-5)


def test_a_single_output_scores_by_its_sigmoid() -> None:
    net = Glass(WEIGHT[:1], BIAS[:1])
    scores = torch.stack([each["scores"] for each in localize(net, features())])
    torch.testing.assert_close(scores, net(features()).sigmoid().detach())


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("top5", "classes is 'top5'; give 'all'"),
        (0, "classes=0 asks for that many of the best, but the model has 4 classes"),
        (5, "classes=5 asks for that many of the best, but the model has 4 classes"),
        (True, "classes must be 'all'"),
        (1.0, "classes must be 'all'"),
        (None, "classes must be 'all'"),
        ([], "classes must be 'all'"),
        ([0.0, 1.0], "classes must be 'all'"),
        ([True, False, False, True], "classes must be 'all'"),
        ([[0, 1], [2]], "classes must be 'all'"),
        (["cat"], "classes must be 'all'"),
        (torch.zeros(1, 1, 1, dtype=torch.int64), "classes must be 'all'"),
        ([4], "class 4 is not one of the model's 4 classes, 0 to 3"),
        ([0, -1], "class -1 is not one of the model's 4 classes"),
        ([[0], [9]], "class 9 is not one"),
        ([2, 1, 2], "class 2 is asked for twice"),
        ([[0], [1], [2]], "classes has 3 rows for 2 images"),
    ],
)
def test_wrong_classes_are_named(classes: Any, message: str) -> None:
    for images in (features(), list(features())):
        with pytest.raises(ValueError, match=re.escape(message)):
            localize(Glass(), images, classes=classes)


def test_choose_classes_keeps_ties_and_order() -> None:
    scores = torch.tensor([[0.1, 0.9, 0.5], [0.7, 0.2, 0.6]])
    assert choose_classes(2, scores).tolist() == [[1, 2], [0, 2]]
    assert choose_classes((2, 0), scores).tolist() == [[2, 0], [2, 0]]
    assert choose_classes(torch.tensor([[1], [0]], dtype=torch.uint8), scores).tolist() == [[1], [0]]


def test_other_mistakes_are_named() -> None:
    net, images = Glass(), features()
    with pytest.raises(ValueError, match="no readout 'gradcam'; choose one of cam, nwc, pas, nwc\\+pas, dcm"):
        localize(net, images, "gradcam")
    with pytest.raises(ValueError, match="no readout 'tap': it is how a network pools while it is trained"):
        localize(net, images, "tap")
    with pytest.raises(ValueError, match="no box rule 'dmc'"):
        localize(net, images, rule="dmc")
    with pytest.raises(ValueError, match="images ask for a gradient"):
        localize(net, images.requires_grad_())
    with pytest.raises(
        ValueError, match=re.escape("images must be a batch (B, 3, H, W) or a list of (3, H, W), not (3, 4")
    ):
        localize(net, torch.rand(3, 4, 5))
    with pytest.raises(ValueError, match=re.escape("image 1 of the list must be a tensor (3, H, W), not (1, 3, 4, 5)")):
        localize(net, [torch.rand(3, 4, 5), torch.rand(1, 3, 4, 5)])
    with pytest.raises(ValueError, match=r"image 0 of the list must be .* not str"):
        localize(net, ["photo.jpg"])  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"images are torch\.uint8; give float images, normalised"):
        localize(net, torch.zeros(1, 3, 4, 5, dtype=torch.uint8))
    with pytest.raises(TypeError, match=r"images are torch\.float64, the model torch\.float32: convert one"):
        localize(net, features().double())
    with pytest.raises(TypeError, match=re.escape("the model must be a torch.nn.Module, not function")):
        localize(lambda x: x, images)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Identity has no parameters, so no linear head"):
        localize(nn.Identity().eval(), features())
    with pytest.raises(ValueError, match="the model has no layer 'classifier'"):
        localize(net, features(), head="classifier")


def test_training_mode_of_any_layer_is_an_error() -> None:
    net = torchvision.models.resnet18(num_classes=3)
    with pytest.raises(ValueError, match=r"the model is in training mode, .* call model.eval\(\)"):
        localize(net, torch.rand(1, 3, 64, 96))
    net.eval().layer3.train()
    with pytest.raises(ValueError, match=r"^layer3 is in training mode"):
        localize(net, torch.rand(1, 3, 64, 96))


def test_a_model_that_hides_its_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="a compiled model hides its layers"):
        localize(torch.compile(Glass()), features())


@pytest.mark.parametrize("head", [None, "fc"])
def test_one_logit_without_an_axis_reads_as_one_with_it(head: str | None) -> None:
    net = torchvision.models.resnet18(num_classes=1).eval()
    images = torch.rand(2, 3, 64, 96)
    wanted = localize(net, images)
    net.register_forward_hook(lambda module, args, result: result.squeeze(1))
    assert net(images).shape == (2,)
    for found, other in zip(localize(net, images, head=head), wanted, strict=True):
        assert all(torch.equal(found[name], other[name]) for name in other)


@pytest.mark.parametrize("shape", [lambda y: y.sum(), lambda y: y.max(dim=1).values])
def test_an_output_that_is_no_score_per_class_is_refused_in_words(shape: Any) -> None:
    net = torchvision.models.resnet18(num_classes=5).eval()
    net.register_forward_hook(lambda module, args, result: shape(result))
    with pytest.raises(ValueError, match=r"\('fc'\), and the model changes what they give; name one with head="):
        localize(net, torch.rand(2, 3, 64, 96))


@pytest.mark.parametrize("width", [2, 64, 512])
def test_a_layer_normalisation_after_a_hidden_layer_is_no_linear_head(width: int) -> None:
    net = torchvision.models.resnet18()
    net.fc = nn.Sequential(nn.Linear(512, width), nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, 5))
    with pytest.raises(ValueError, match=r"'fc\.3' is not linear in the pooled features; .*: linear, layer_norm"):
        localize(net.eval(), torch.rand(2, 3, 64, 96))


def test_a_module_of_torch_export_is_refused_with_what_can_be_done() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    module = torch.export.export(net, (torch.rand(2, 3, 8, 8),)).module()
    with pytest.raises(ValueError, match=r"has no evaluation mode: give the plain model that it was exported from"):
        localize(module, torch.rand(2, 3, 8, 8))


def test_the_package_offers_it_and_brings_torch_only_then() -> None:
    assert wsolnb.localize is localize
    assert "localize" in dir(wsolnb)
    with pytest.raises(AttributeError, match="module 'wsolnb' has no attribute 'locate'"):
        _ = wsolnb.locate
    code = "import sys, wsolnb; assert 'torch' not in sys.modules; wsolnb.localize; assert 'torch' in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
