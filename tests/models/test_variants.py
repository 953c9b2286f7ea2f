"""Backbones with other tails, and those that come from timm."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from wsolnb.models.backbones import backbone


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


def test_frozen_normalisation_reaches_timms_layers() -> None:
    norms = [m for m in backbone("mobilenet_v1", freeze_norm=True).train().modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert not any(m.training for m in norms)


def test_unknown_weights_list_timms_own() -> None:
    with pytest.raises(ValueError, match=r"seresnet50 has no weights 'DEFAULT'; known: .*ra2_in1k.*, or a file"):
        backbone("resnet50_se", weights="DEFAULT")
