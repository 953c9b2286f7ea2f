"""A trained localization method with all that is needed to use it again, and the folder that holds it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from wsolnb._utils.files import read_verified, require_new_folder, to_bytes, write_atomic
from wsolnb.boxes import BoxRule
from wsolnb.data.taxonomy import Taxonomy
from wsolnb.inference.model_card import model_card
from wsolnb.models.backbones import backbone
from wsolnb.papers.method import Fitted, Method, Start, Trained
from wsolnb.papers.side_by_side.methods import METHODS
from wsolnb.train import Plan, Training

WEIGHTS, ABOUT, CARD = "weights.safetensors", "model.json", "README.md"
_EMBEDDINGS = "embeddings"
_STATED = ("method", "settings", "classes", "image_size", "backbone", "rule", "taxonomy", "trained", "chosen")


@dataclass(frozen=True)
class LocalizationModel:
    """A trained method, its classes, and the squares of `image_size` pixels that it takes.

    Args:
        fitted: The method with its trained networks.
        body: Name and options of the backbone, as for `wsolnb.models.backbones.backbone`, without weights.
        rule: How maps become boxes.
        taxonomy: The class tree of semantic embeddings.
        trained: What it was trained on and how well it did, for its card.
        chosen: How the threshold of `rule` was chosen, for its card, see `store_rule`.
    """

    fitted: Fitted
    classes: tuple[str, ...]
    image_size: int
    body: Mapping[str, Any]
    rule: BoxRule
    taxonomy: Taxonomy | None = None
    trained: Mapping[str, Any] = field(default_factory=dict)
    chosen: Mapping[str, Any] = field(default_factory=dict)

    @torch.inference_mode()
    def localize(self, images: Tensor, classes: Any = 1) -> list[dict[str, Tensor]]:
        """Boxes, scores and maps of classes in images, as `wsolnb.localize` gives them.

        Images are RGB, uint8 or float in [0, 1], `(B, 3, H, W)`; they are resized to squares, and boxes refer to the
        images as they were given. `classes` is as for `wsolnb.localize`.
        """
        pixels = v2.functional.to_dtype(images, torch.float32, scale=True)
        squares = v2.functional.resize(pixels, [self.image_size, self.image_size], antialias=True)
        found = self.fitted.localize(squares, classes, self.rule)
        scale = torch.tensor([images.shape[3], images.shape[2]] * 2) / self.image_size
        return [row | {"boxes": row["boxes"] * scale.to(row["boxes"].device)} for row in found]

    def save(self, folder: str | Path) -> Path:
        """Write weights, `model.json` and a model card into a new folder.

        Raises:
            FileExistsError: If the folder is not empty.
        """
        folder = Path(folder)
        require_new_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        method, networks = self.fitted.method, self.fitted.networks
        used = [*(each.network for each in method.needs), method.network]
        weights = {name: networks[name].network.state_dict() for name in used}
        state = {f"{name}.{k}": v.clone() for name, own in weights.items() for k, v in own.items()}  # some are shared
        state |= {f"{_EMBEDDINGS}.{name}": each for name in used if (each := _embeddings(networks[name])) is not None}
        data = to_bytes(state)
        about = {
            "method": method.key,
            "settings": _settings(method),
            "classes": list(self.classes),
            "image_size": self.image_size,
            "backbone": dict(self.body),
            "rule": asdict(self.rule),
            "taxonomy": self.taxonomy.parents if self.taxonomy else None,
            "trained": dict(self.trained),
            "chosen": dict(self.chosen),
            "sha256": hashlib.sha256(data).hexdigest(),
            "versions": {name: version(name) for name in ("wsolnb", "torch", "torchvision")},
        }
        write_atomic(folder / WEIGHTS, data)
        _describe(folder, about)
        return folder


def load(folder: str | Path, device: str | torch.device = "cpu") -> LocalizationModel:
    """Read a model that `LocalizationModel.save` wrote; nothing in the folder is executed.

    Raises:
        FileNotFoundError: If the folder has no `model.json`.
        ValueError: If a file is damaged or of another version's methods.

    Example:
        >>> load("a folder that does not exist")
        Traceback (most recent call last):
        FileNotFoundError: a folder that does not exist is no model: it has no model.json
    """
    folder = Path(folder)
    about = _about(folder)
    try:
        method = _with_settings(METHODS[about["method"]], about["settings"])
        body, classes, side = about["backbone"], tuple(about["classes"]), about["image_size"]
        rule = BoxRule(**{name: _tuples(value) for name, value in about["rule"].items()})
        taxonomy = Taxonomy(about["taxonomy"]) if about["taxonomy"] else None
        notes = about["trained"], about["chosen"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / ABOUT} cannot be read as a model: {error!r}") from None
    state = read_verified(folder / WEIGHTS, about["sha256"], "save the model again")
    blank = [(torch.zeros(3, side, side), label) for label in range(len(classes)) for _ in range(2)]
    start = Start(backbone(**body), cast(Any, blank), classes, Plan(1, batch_size=1), taxonomy)
    networks: dict[str, Trained] = {}
    for each in (*method.needs, method):  # built as for training, and then filled
        network, objective, _ = each.untrained(start, networks)
        prefix = f"{each.network}."
        own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        network.load_state_dict(own)
        network.to(device).to(memory_format=torch.channels_last).eval()  # as training leaves it, to the last digit
        if isinstance(objective, nn.Module):
            objective.to(device)
        networks[each.network] = Trained(network, objective, Training())
        if (embeddings := _embeddings(networks[each.network])) is not None:
            embeddings.copy_(state[f"{_EMBEDDINGS}.{each.network}"])  # another machine may round them otherwise
    return LocalizationModel(Fitted(method, networks), classes, side, body, rule, taxonomy, *notes)


def store_rule(folder: Path, rule: BoxRule, chosen: Mapping[str, Any]) -> None:
    """Give the model of a folder another box rule: its `model.json` and its card are replaced, its weights stay.

    Args:
        folder: As `LocalizationModel.save` wrote it.
        rule: How its maps become boxes from now on.
        chosen: How that was chosen, as values of JSON: `by` in words, and whatever else the card should list; `boxes`,
            the number of drawn boxes, where any were used.

    Raises:
        FileNotFoundError: If the folder has no `model.json`.
        ValueError: If `model.json` is damaged.
        OSError: If it cannot be written; the rule stays as it was.

    Example:
        >>> store_rule(Path("a folder that does not exist"), BoxRule(0.3), {"by": "hand"})
        Traceback (most recent call last):
        FileNotFoundError: a folder that does not exist is no model: it has no model.json
    """
    _describe(folder, _about(folder) | {"rule": asdict(rule), "chosen": dict(chosen)})


def keep_models(out: str | Path, models: Mapping[str, LocalizationModel]) -> None:
    """Write the models of a run into `out/models/NAME/`, in place of those of the same run before it was stopped.

    An empty `out` keeps nothing.

    Example:
        >>> keep_models("", {})
    """
    if str(out):
        for name, model in models.items():
            folder = Path(out) / "models" / name
            if (folder / WEIGHTS).exists():
                shutil.rmtree(folder)
            model.save(folder)


def _embeddings(trained: Trained) -> Tensor | None:
    """The class embeddings of the cosine loss, if that is what a network was trained with."""
    return getattr(trained.objective, "embeddings", None)


def _about(folder: Path) -> dict[str, Any]:
    """What `model.json` says."""
    if not (folder / ABOUT).is_file():
        raise FileNotFoundError(f"{folder} is no model: it has no {ABOUT}")
    try:
        about: dict[str, Any] = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        missing = [name for name in (*_STATED, "sha256", "versions") if name not in about]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{folder / ABOUT} cannot be read as a model: {error!r}") from None
    if missing:
        raise ValueError(f"{folder / ABOUT} cannot be read as a model: it has no {missing[0]!r}")
    return about


def _describe(folder: Path, about: Mapping[str, Any]) -> None:
    """Write `model.json` and the card that follows from it."""
    text = json.dumps(about, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomic(folder / CARD, model_card(about).encode())
    write_atomic(folder / ABOUT, text.encode())


def _settings(method: Method) -> dict[str, Any]:
    """A method's settings as JSON has them."""
    values: dict[str, Any] = {each.name: getattr(method, each.name) for each in fields(method)}
    if unknown := [name for name, value in values.items() if callable(value) and not is_dataclass(value)]:
        raise ValueError(f"method {method.key!r} has a function as {unknown[0]}, which a model folder cannot hold")
    return {
        name: asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
        for name, value in values.items()
    }


def _with_settings(method: Method, settings: Mapping[str, Any]) -> Method:
    """The method of that name with the settings of a file."""
    values: dict[str, Any] = {}
    for name, value in settings.items():
        known: Any = getattr(method, name)
        values[name] = type(known)(**value) if isinstance(value, dict) else _tuples(value)
    return replace(method, **values)


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
