"""Backbones: stages, strides, tails, input conventions and weights from files, of torchvision and timm."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision.transforms.v2.functional import pil_to_tensor

from wsolnb.models.backbones import BACKBONES, backbone
from wsolnb.models.cam import Classifier, new_head
from wsolnb.models.checkpoint_file import read_weights


@pytest.mark.parametrize("name", [n for n in BACKBONES if not n.startswith("tiny")])
@pytest.mark.parametrize("stride", [32, 16])
def test_features_have_the_requested_stride(name: str, stride: int) -> None:
    net = backbone(name, stride=stride).eval()
    features = net(torch.rand(1, 3, 192, 256))
    slack = {"squeezenet1_0": 1, "alexnet": 1, "inception_v3": 2}.get(name, 0)  # they pad less than they shrink
    assert features.shape[1] == net.out_channels
    assert abs(features.shape[2] - 192 // stride) <= slack
    assert abs(features.shape[3] - 256 // stride) <= slack
    assert net.stride == stride


def test_later_stages_are_not_computed() -> None:
    net = backbone("tiny").eval()
    net.stages["block3"] = nn.Sequential(nn.Unflatten(1, (7, 7)))  # would raise if it ran
    found = net.stage_features(torch.rand(2, 3, 32, 48), "block1", "block2")
    assert {k: tuple(v.shape) for k, v in found.items()} == {"block1": (2, 24, 16, 24), "block2": (2, 48, 8, 12)}


def test_features_equal_torchvision_with_normalisation() -> None:
    reference = torchvision.models.resnet18(weights=None).eval()
    net = backbone("resnet18").eval()
    chain = nn.Sequential(*list(reference.children())[:-2])
    for mine, theirs in zip(net.stages.parameters(), chain.parameters(), strict=True):
        mine.data.copy_(theirs)
    images = torch.rand(2, 3, 64, 96)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    torch.testing.assert_close(net(images), chain((images - mean) / std))


def test_caffe_convention_reverses_the_channels() -> None:
    net = backbone("squeezenet1_0", convention="caffe")
    image = torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1)
    expected = torch.tensor([0 - 104, 127.5 - 117, 255 - 123]).view(1, 3, 1, 1)
    torch.testing.assert_close(net.normalise(image), expected, atol=1e-4, rtol=0)


def test_tensorflow_convention_pads_right_and_below() -> None:
    net = backbone("mobilenet_v2", convention="tensorflow")
    pads = [m for m in net.modules() if isinstance(m, nn.ZeroPad2d)]
    strided = [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
    assert len(pads) == len(strided) == 5
    assert {p.padding for p in pads} == {(0, 1, 0, 1)}
    assert {c.padding for c in strided} == {(0, 0)}


@pytest.mark.parametrize("name", ["tiny", "mobilenet_v1"])
def test_frozen_normalisation_stays_in_evaluation_mode(name: str) -> None:
    norms = [m for m in backbone(name, freeze_norm=True).train().modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert not any(m.training for m in norms)


def test_weights_from_a_file(tmp_path: Path) -> None:
    torch.manual_seed(1)
    state = torchvision.models.resnet18(weights=None).state_dict()
    save_file(state, tmp_path / "r18.safetensors")
    torch.save({"state_dict": state}, tmp_path / "r18.pth")
    for file in ("r18.safetensors", "r18.pth"):
        net = backbone("resnet18", weights=str(tmp_path / file))
        assert torch.equal(net.stages["layer4"][1].conv2.weight, state["layer4.1.conv2.weight"])


def test_weights_that_do_not_fit_name_the_keys(tmp_path: Path) -> None:
    state = torchvision.models.resnet18(weights=None).state_dict()
    del state["layer1.0.conv1.weight"]
    state["layer2.0.conv1.weight"] = torch.zeros(3, 3)
    state["surprise"] = torch.zeros(1)
    save_file(state, tmp_path / "r18.safetensors")
    with pytest.raises(ValueError, match=r"do not fit resnet18") as error:
        backbone("resnet18", weights=str(tmp_path / "r18.safetensors"))
    text = str(error.value)
    assert "1 missing keys: layer1.0.conv1.weight" in text
    assert "1 unknown keys: surprise" in text
    assert "layer2.0.conv1.weight (3, 3) instead of (128, 64, 3, 3)" in text


def test_bad_names_and_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown backbone 'resnet81' \(did you mean 'resnet18'\?\)"):
        backbone("resnet81")
    with pytest.raises(ValueError, match="stride 32 or 16, not 4"):
        backbone("resnet18", stride=4)
    with pytest.raises(ValueError, match="has no weights 'IMAGENET22K'; known: IMAGENET1K_V1"):
        backbone("resnet18", weights="IMAGENET22K")
    with pytest.raises(FileNotFoundError, match="no weights at"):
        backbone("resnet18", weights=str(tmp_path / "absent.pth"))
    (tmp_path / "broken.safetensors").write_bytes(b"\0\1\2")
    with pytest.raises(ValueError, match="cannot be read as weights"):
        read_weights(tmp_path / "broken.safetensors")
    torch.save({"weight": print}, tmp_path / "code.pth")
    with pytest.raises(ValueError, match=r"code\.pth names builtins\.print, code that no weights need: not loaded"):
        read_weights(tmp_path / "code.pth")
    with pytest.raises(ValueError, match="no stage 'layer9'; its stages are block1, block2, block3"):
        backbone("tiny").stage_features(torch.rand(1, 3, 16, 16), "layer9")
    with pytest.raises(ValueError, match=r"float images \(B, 3, H, W\)"):
        backbone("tiny")(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))


def test_shared_weights_classify_like_the_full_network(shared_data: Path) -> None:
    path = shared_data / "weights" / "mobilenet_v2_imagenet.safetensors"
    net = Classifier(backbone("mobilenet_v2", weights=str(path), convention="tensorflow"), 1000).eval()
    state = read_weights(path)
    net.head.load_state_dict({k: state[f"classifier.1.{k}"].float() for k in ("weight", "bias")})
    photo = Image.open(shared_data / "coco256/val2017/000000000285.jpg").convert("RGB")  # a bear
    image = pil_to_tensor(photo.resize((224, 224))).float()[None] / 255
    with torch.no_grad():
        assert net(image).argmax().item() in {294, 295, 296, 297}  # ImageNet's four bears


def test_a_new_head_leaves_the_backbone_as_it_was_and_a_frozen_one_learns_nothing():
    start = backbone("tiny_gap")
    before = {name: each.clone() for name, each in start.state_dict().items()}
    net = new_head(start, 4, freeze=True).train()
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=1.0)
    net(torch.rand(3, 3, 32, 48)).square().sum().backward()
    optimizer.step()
    for name, each in net.backbone.state_dict().items():
        assert torch.equal(each, before[name]), name
    assert net.backbone is not start
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in list(start.stages["block3"])[3:])


def test_new_heads_of_one_seed_are_equal():
    start = backbone("tiny")
    first, again, other = (new_head(start, 4, seed=seed).head.weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("name", "channels", "cells"),
    [("vgg16_gap", 1024, 14), ("googlenet_gap", 1024, 14), ("resnet50_se", 2048, 7), ("mobilenet_v1", 1024, 7)],
)
def test_maps_are_as_large_as_in_the_paper(name: str, channels: int, cells: int) -> None:
    net = backbone(name).eval()
    with torch.no_grad():
        assert net(torch.rand(1, 3, 224, 224)).shape == (1, channels, cells, cells)
        assert net(torch.rand(1, 3, 224, 224)).min() >= 0


def test_vgg16_keeps_everything_before_its_last_pooling(tmp_path: Path) -> None:
    whole = torchvision.models.vgg16(weights=None).eval()
    save_file({k: v.contiguous() for k, v in whole.state_dict().items()}, tmp_path / "vgg.safetensors")
    net = backbone("vgg16_gap", weights=str(tmp_path / "vgg.safetensors")).eval()
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        found = net.stage_features(images, "block5")["block5"]
        torch.testing.assert_close(found, whole.features[:30](net.normalise(images)))
    assert [type(m) for m in net.stages["conv6"]] == [nn.Conv2d, nn.ReLU]
    assert net.strides == {"block1": 2, "block2": 4, "block3": 8, "block4": 16, "block5": 16, "conv6": 16}


def test_inception_v3_is_cut_where_the_heads_are() -> None:
    whole = torchvision.models.inception_v3(weights=None, init_weights=False, aux_logits=False).eval()
    net = backbone("inception_v3").eval()
    own = [v for k, v in whole.named_parameters() if not k.startswith(("Mixed_7", "fc."))]
    for mine, theirs in zip(net.stages.parameters(), own, strict=True):
        mine.data.copy_(theirs)
    images = torch.rand(1, 3, 128, 160)
    reached: list[torch.Tensor] = []
    whole.Mixed_6e.register_forward_hook(lambda *call: reached.append(call[2]))
    with torch.no_grad():
        whole(2 * images - 1)
        found = net.stage_features(images, "Mixed_6b", "Mixed_6e")
    torch.testing.assert_close(found["Mixed_6e"], reached[0])
    assert found["Mixed_6b"].shape == found["Mixed_6e"].shape == (1, 768, 6, 8)


@pytest.mark.parametrize(("name", "theirs"), [("resnet50_se", "seresnet50"), ("mobilenet_v1", "mobilenetv1_100")])
def test_networks_of_timm_are_timms(name: str, theirs: str, tmp_path: Path) -> None:
    whole = timm.create_model(theirs, pretrained=False).eval()
    save_file(whole.state_dict(), tmp_path / "weights.safetensors")
    net = backbone(name, weights=str(tmp_path / "weights.safetensors")).eval()
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(net(images), whole.forward_features(net.normalise(images)))


def test_unknown_weights_list_timms_own() -> None:
    said = r"resnet50_se \(timm's seresnet50\) has no weights 'DEFAULT'; known: .*ra2_in1k.*, or a file"
    with pytest.raises(ValueError, match=said):
        backbone("resnet50_se", weights="DEFAULT")
