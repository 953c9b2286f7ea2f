"""Keys of a file of weights, whatever stands before them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from wsolnb.models.weights import load_into, weights_for


def small() -> nn.Module:
    """A network whose own first layer is called like a wrapper's prefix."""
    torch.manual_seed(0)
    return nn.ModuleDict({"model": nn.Conv2d(3, 4, 1), "norm": nn.BatchNorm2d(4), "fc": nn.Linear(4, 2)})


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


def saved(content: object, folder: Path) -> Path:
    torch.save(content, folder / "w.ckpt")
    return folder / "w.ckpt"


@pytest.mark.parametrize(
    "prefix", ["", "module.", "model.", "_orig_mod.", "net.", "module._orig_mod.", "model.module.", "backbone.encoder."]
)
def test_a_prefix_before_all_keys_is_taken_off(prefix: str, tmp_path: Path) -> None:
    net, other = small(), small()
    state = {key: value + 1 for key, value in net.state_dict().items()}
    beside = {"criterion.weight": torch.ones(2), "metric.total": torch.ones(())} if prefix else {}
    path = saved({"state_dict": prefixed(state, prefix) | beside}, tmp_path)
    load_into(other, "small", str(path), ())
    assert all(torch.equal(value, state[key]) for key, value in other.state_dict().items() if "tracked" not in key)


def test_of_two_networks_in_a_file_the_wrapped_one_is_meant_or_none(tmp_path: Path) -> None:
    state = small().state_dict()
    averaged = {key: value + 1 for key, value in state.items()}
    path = saved(prefixed(state, "model.") | prefixed(averaged, "ema_model."), tmp_path)
    assert all(torch.equal(value, state[key]) for key, value in weights_for(small(), path).items())
    path = saved(prefixed(state, "student.") | prefixed(averaged, "teacher."), tmp_path)
    with pytest.raises(ValueError, match=r"w\.ckpt holds weights of several networks that fit, under 'student\.'"):
        weights_for(small(), path)


def test_what_does_not_fit_is_named_in_one_line_with_the_file_and_a_remedy(tmp_path: Path) -> None:
    state = prefixed(small().state_dict(), "module.")
    del state["module.fc.bias"]
    path = saved(state, tmp_path)
    message = r"weights '.*w\.ckpt' do not fit small: 1 missing keys: fc\.bias; name the network"
    with pytest.raises(ValueError, match=message) as info:
        load_into(small(), "small", str(path), ())
    assert "\n" not in str(info.value)


def test_weights_that_cannot_be_downloaded_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody answers there
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(
        ConnectionError, match=r"squeezenet1_0-\w+\.pth cannot be downloaded \(.*\): fetch it elsewhere"
    ):
        load_into(small(), "squeezenet1_0", "DEFAULT", ())
