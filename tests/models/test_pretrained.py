"""Networks of timm bring their preprocessing, whatever weights they have."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import timm
import torch

from wsolnb.models.pretrained import pretrained_classifier, timm_classifier


def test_a_checkpoint_of_timms_training_is_read(tmp_path: Path) -> None:
    net = timm.create_model("resnet10t", num_classes=4)
    averaged = {f"module.{key}": value for key, value in net.state_dict().items()}
    other = {key: torch.zeros_like(value) for key, value in averaged.items()}
    content = {"epoch": 3, "arch": "resnet10t", "state_dict": other, "state_dict_ema": averaged}
    torch.save(content | {"args": argparse.Namespace(model="resnet10t", lr=0.1)}, tmp_path / "model_best.pth.tar")
    found = pretrained_classifier("timm/resnet10t", str(tmp_path / "model_best.pth.tar"))
    assert torch.equal(found.net.fc.weight, net.fc.weight)
    assert found.names is None


def test_the_networks_own_configuration_says_how_images_are_prepared(tmp_path: Path) -> None:
    name = "vit_tiny_patch16_224"
    net = timm.create_model(name, num_classes=3)
    torch.save(net.state_dict(), tmp_path / "three.bin")
    loaded = timm.create_model(name, num_classes=3, checkpoint_path=str(tmp_path / "three.bin"))
    found = timm_classifier(loaded)
    assert found.net is loaded
    assert (found.size, found.mean, found.std, found.square) == (224, (0.5,) * 3, (0.5,) * 3, True)
    loaded.pretrained_cfg = {**loaded.pretrained_cfg, "mean": (0.1, 0.2, 0.3), "std": (1, 1, 1)}
    assert timm_classifier(loaded).mean == (0.1, 0.2, 0.3)


def test_a_tag_chooses_the_preprocessing(tmp_path: Path) -> None:
    torch.save(timm.create_model("efficientnet_b0", num_classes=3).state_dict(), tmp_path / "three.pth")
    default = pretrained_classifier("timm/efficientnet_b0", str(tmp_path / "three.pth"))
    tagged = pretrained_classifier("timm/efficientnet_b0.ra4_e3600_r224_in1k", str(tmp_path / "three.pth"))
    assert (default.mean, tagged.mean) == ((0.485, 0.456, 0.406), (0.5, 0.5, 0.5))
    with pytest.raises(ValueError, match=r"efficientnet_b0 has no weights 'best'; known: .*ra_in1k.*, or a file"):
        pretrained_classifier("timm/efficientnet_b0.best", str(tmp_path / "three.pth"))
