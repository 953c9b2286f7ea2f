"""The explorer: a widget for maps, dense class maps and boxes, in JupyterLab and in a page without a kernel.

Python ships maps and images once, and can read, set and observe the state. Whatever depends on a slider is computed in
the browser, with the same numbers as in this package.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import anywidget
import pandas as pd
import torch
import traitlets as t
from torch import Tensor

from wsolnb._utils.progress import headless
from wsolnb.boxes import BoxRule, iou
from wsolnb.explorer import payload
from wsolnb.explorer.payload import ANY, ShippedMaps
from wsolnb.explorer.picture import HEAT, class_colours, greys
from wsolnb.papers.barz2022.maps import class_scores
from wsolnb.plots.style import encode_png

_FOLDER = Path(__file__).parent
_SCRIPTS = ("rules.js", "dense.js", "canvas.js", "controls.js", "scene.js", "panel.js", "explorer.js")
LIMIT = 16.0  # MB that a page may carry


class Explorer(anywidget.AnyWidget):
    """Compare methods on the same images while moving any threshold.

    State, which can be read, set and observed (`observe`): `image` (index of the image shown), `labels` (indices of the
    classes shown; empty for all present), `methods` (shown side by side), `thresholds` and `presences` (by method:
    threshold of the box rule, and the score above which a class is present), `sim_threshold` (of dense class maps),
    `reference` (`"rule"`: as in the box rule, `"maximum"` or `"percentile"`) and `percentile`, `view` (`"map"`,
    `"region"`: what exceeds the threshold, or `"classes"`: the dense class map where a method has one), `opacity`,
    `truth` and `parts` (whether to draw true boxes and the outlines of parts).

    Args:
        images: Images `(3, H, W)`, or a data set of `(image, target)`, whose targets are the truth.
        maps: By method: maps `(N, C, h, w)` or one `(C, h, w)` per image; `(N, h, w)` for maps that belong to no class
            or to the true one; or `SceneMaps`, `LocalizationMaps`, or `LocalizationResult` with its rule. If these
            were made from resized images, images and truth are resized as well.
        targets: Truth of every image (`boxes`, `labels`, optionally `masks` and `mark_masks`), instead of that of
            the data set.
        rules: A box rule for all methods, or one by method; the default is `BoxRule.preset("cam")`, and `"dcm"` for
            dense methods.
        dense: Methods whose maps are similarities of dense class embeddings; by default those named `dcm...`.
        indices: Images to take; by default all.
        first: Take at most this many, and fewer if they exceed `limit`, instead of raising an error.
        presence: The score above which a class is present, for all methods or by method.
        limit: Largest payload in MB.
        **state: Initial values of the state above.

    Raises:
        ValueError: If counts, classes or shapes do not fit, a map holds NaN, or the payload is too large; the message
            names method, image and size.

    Example:
        >>> images = torch.zeros(2, 3, 30, 40, dtype=torch.uint8)
        >>> maps = {"cam": torch.rand(2, 3, 5, 7), "heat": torch.rand(2, 5, 7)}
        >>> explorer = Explorer(images, maps, ["cat", "dog", "owl"], image=1, labels=[2])
        >>> explorer
        Explorer(2 images, 3 classes, cam + heat)
        >>> list(explorer.table().columns)
        ['method', 'label', 'score', 'x0', 'y0', 'x1', 'y1', 'iou']
    """

    _esm = "\n".join((_FOLDER / script).read_text(encoding="utf-8") for script in _SCRIPTS)
    _css = (_FOLDER / "explorer.css").read_text(encoding="utf-8")

    _wsolnb = t.Unicode("explorer").tag(sync=True)
    _pictures: t.List[Any] = t.List().tag(sync=True)
    _readings = t.Dict().tag(sync=True)
    _rules = t.Dict().tag(sync=True)
    _order: t.List[Any] = t.List().tag(sync=True)  # of the methods; a stored state sorts the names
    _classes: t.List[Any] = t.List().tag(sync=True)
    _colours: t.List[Any] = t.List().tag(sync=True)
    _heat = t.List(HEAT).tag(sync=True)
    _greys: t.List[Any] = t.List().tag(sync=True)

    image = t.Int(0).tag(sync=True)
    labels = t.List(t.Int()).tag(sync=True)
    methods = t.List(t.Unicode()).tag(sync=True)
    thresholds = t.Dict(value_trait=t.Float()).tag(sync=True)
    presences = t.Dict(value_trait=t.Float()).tag(sync=True)
    sim_threshold = t.Float(0.75, min=-1, max=1).tag(sync=True)
    reference = t.Enum(["rule", "maximum", "percentile"], "rule").tag(sync=True)
    percentile = t.Float(90.0, min=0, max=100).tag(sync=True)
    view = t.Enum(["map", "region", "classes"], "map").tag(sync=True)
    opacity = t.Float(0.6, min=0, max=1).tag(sync=True)
    truth = t.Bool(True).tag(sync=True)
    parts = t.Bool(False).tag(sync=True)

    def __init__(
        self,
        images: Any,
        maps: Mapping[str, Any],
        classes: Sequence[str],
        *,
        targets: Sequence[Mapping[str, Any]] | None = None,
        rules: BoxRule | Mapping[str, BoxRule] | None = None,
        dense: Sequence[str] | None = None,
        indices: Sequence[int] | None = None,
        first: int | None = None,
        presence: float | Mapping[str, float] = 0.5,
        limit: float = LIMIT,
        **state: Any,
    ) -> None:
        if not maps:
            raise ValueError("there are no maps to explore: give at least one method")
        chosen = list(range(len(images)) if indices is None else indices)[:first]
        if not chosen:
            raise ValueError("there are no images to explore")
        dense = [name for name in maps if name.startswith("dcm")] if dense is None else list(dense)
        self._shipped: dict[str, ShippedMaps] = {}
        for name, source in maps.items():
            rule = rules.get(name) if isinstance(rules, Mapping) else rules
            self._shipped[name] = payload.prepare(
                name, source, len(images), len(classes), chosen, rule=rule, dense=name in dense
            )
        if targets is not None and len(targets) != len(images):
            raise ValueError(f"there are targets of {len(targets)} images, but {len(images)} images")
        if unknown := set(dense) - set(maps):
            raise ValueError(f"dense names {sorted(unknown)}, but the methods are {', '.join(maps)}")
        pictures = _pictures(images, targets, chosen, self._shipped.values(), limit, all_or_none=first is None)
        self._shipped = {name: shipped.first(len(pictures)) for name, shipped in self._shipped.items()}
        if first is not None and "image" in state:
            state["image"] = min(state["image"], len(pictures) - 1)
        given = presence if isinstance(presence, Mapping) else dict.fromkeys(maps, presence)
        defaults: dict[str, Any] = {
            "methods": list(maps),
            "thresholds": {name: shipped.rule.threshold for name, shipped in self._shipped.items()},
            "presences": {name: float(given.get(name, 0.5)) for name in maps},
        }
        for name in ("thresholds", "presences"):  # by method: a state with some of the methods keeps the others
            state[name] = defaults[name] | dict(state.get(name, {}))
        super().__init__(
            _pictures=pictures,
            _readings={name: payload.pack(shipped) for name, shipped in self._shipped.items()},
            _rules={name: asdict(shipped.rule) for name, shipped in self._shipped.items()},
            _order=list(maps),
            _classes=list(classes),
            _colours=class_colours(len(classes)),
            _greys=greys() if any(shipped.rule.colour_map for shipped in self._shipped.values()) else [],
            **(defaults | state),
        )

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Explorer:
        """An explorer from the widget state stored in a notebook, with the bytes of its buffers in place."""
        self = cls.__new__(cls)
        self._shipped = {}
        for name in state["_order"]:
            fields = state["_rules"][name].items()  # JSON has no tuples
            rule: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in fields}
            self._shipped[name] = payload.unpack(state["_readings"][name], BoxRule(**rule))
        synced = set(cls.class_trait_names(sync=True)) - set(anywidget.AnyWidget.class_trait_names(sync=True))
        anywidget.AnyWidget.__init__(self, **{name: state[name] for name in synced & set(state)})
        return self

    @t.validate("image")
    def _valid_image(self, proposal: Any) -> int:
        if not 0 <= proposal["value"] < len(self._pictures):
            raise t.TraitError(f"image {proposal['value']} is none of the {len(self._pictures)} images")
        return int(proposal["value"])

    @t.validate("labels")
    def _valid_labels(self, proposal: Any) -> list[int]:
        if wrong := [label for label in proposal["value"] if not 0 <= label < len(self._classes)]:
            raise t.TraitError(f"labels {wrong} are none of the {len(self._classes)} classes")
        return list(proposal["value"])

    @t.validate("methods", "thresholds", "presences")
    def _valid_methods(self, proposal: Any) -> Any:
        if unknown := [name for name in proposal["value"] if name not in self._readings]:
            raise t.TraitError(f"no method {', '.join(unknown)}; the methods are {', '.join(self._readings)}")
        if isinstance(proposal["value"], Mapping):
            return {**getattr(self, proposal["trait"].name), **proposal["value"]}
        return proposal["value"]

    def rule(self, method: str) -> BoxRule:
        """The current box rule of a method, with the threshold and the reference of the state."""
        rule = replace(self._shipped[method].rule, threshold=self.thresholds[method])
        if self.reference == "maximum":
            return replace(rule, reference="maximum")
        if self.reference == "percentile":
            return replace(rule, reference="percentile", percentile=self.percentile)
        return rule

    def table(self, image: int | None = None) -> pd.DataFrame:
        """The boxes on an image, by default the one shown; the browser computes the same ones.

        One row per box: `method`, `label` (the class, or "any"), `score` (NaN if unknown), `x0`, `y0`, `x1`, `y1` in
        pixels, and `iou` with the best true box of the class (NaN if there is none).
        """
        index = self.image if image is None else image
        shown = self._pictures[index]
        truth = torch.tensor(shown["boxes"]).reshape(-1, 4)
        labels = torch.tensor(shown["labels"], dtype=torch.int64)
        rows = []
        for method in self.methods:
            for label, score, box in self._boxes(method, index):
                same = truth if label == ANY else truth[labels == label]
                overlap = float(iou(box[None], same).max()) if len(same) else float("nan")
                name = "any" if label == ANY else self._classes[label]
                rows.append((method, name, score, *box.tolist(), overlap))
        return pd.DataFrame(rows, columns=["method", "label", "score", "x0", "y0", "x1", "y1", "iou"])

    def _scores(self, method: str, image: int) -> Tensor | None:
        """Scores of all classes `(C,)`: barz2022 Eq. 8 for a dense method, otherwise those that came with the maps."""
        shipped = self._shipped[method]
        if shipped.dense and not shipped.agnostic:
            return class_scores(shipped.maps[image][None])[0]
        return None if shipped.scores is None else shipped.scores[image]

    def _labels(self, method: str, image: int) -> list[int]:
        """The classes shown: the chosen ones, or those present, or without scores the true ones (all if unknown)."""
        if self._shipped[method].agnostic:
            return [ANY]
        if self.labels:
            return sorted(set(self.labels))
        scores = self._scores(method, image)
        if scores is None:
            return sorted(set(self._pictures[image]["labels"])) or list(range(len(self._classes)))
        return (scores > self.presences.get(method, 0.5)).nonzero().flatten().tolist()

    def _boxes(self, method: str, image: int) -> list[tuple[int, float, Tensor]]:
        """Boxes of the classes shown: label, score (NaN if unknown) and box `(4,)`."""
        labels = self._labels(method, image)
        if not labels:
            return []
        maps, scores = self._shipped[method].maps[image], self._scores(method, image)
        chosen = maps if labels == [ANY] else maps[labels]
        boxes, _, which = self.rule(method).all_boxes(chosen[None], tuple(self._pictures[image]["size"]))
        shown = [labels[k] for k in which.tolist()]
        return [
            (k, float("nan") if scores is None else float(scores[k]), box) for k, box in zip(shown, boxes, strict=True)
        ]

    def png(self, *, height: int = 300, colours: int = 256) -> bytes:
        """The current view as a PNG: the image with its truth, and every method shown, in panels `height` pixels high.

        Fewer `colours` in its palette make a smaller file.
        """
        from wsolnb.explorer.picture import draw

        return encode_png(draw(self, self.image, height), colours)

    def open(self) -> None:
        """Connect to the page, except in a headless run; `WSOLNB_WIDGETS=1` says that its notebook will be shown."""
        if (os.environ.get("WSOLNB_WIDGETS") or ("0" if headless() else "1")) != "0":
            super().open()

    def __repr__(self) -> str:
        return f"Explorer({len(self._pictures)} images, {len(self._classes)} classes, {' + '.join(self._readings)})"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """IPython's display hook: adds a picture for places that run no widget."""
        bundle: dict[str, Any] = {"text/plain": repr(self)}
        if self.comm is not None:
            shown = super()._repr_mimebundle_(**kwargs)
            bundle |= shown[0] if isinstance(shown, tuple) else shown or {}
        bundle["image/png"] = base64.b64encode(self.png(height=150, colours=64)).decode()
        return bundle, {}


def _pictures(
    images: Any, targets: Any, chosen: Sequence[int], shipped: Collection[ShippedMaps], limit: float, all_or_none: bool
) -> list[dict[str, Any]]:
    """The pictures that fit into the limit with their maps; all, or an error as soon as the limit is exceeded."""
    sizes = {maps.image_size for maps in shipped} - {None}
    if len(sizes) > 1:
        raise ValueError(f"the maps belong to images of different sizes: {sorted(sizes)}")  # type: ignore[type-var]
    map_bytes = [sum(2 * maps.maps[k].numel() for maps in shipped) for k in range(len(chosen))]
    pictures: list[dict[str, Any]] = []
    picture_bytes = 0
    for count, index in enumerate(chosen, 1):
        item = images[index]
        image, target = item if isinstance(item, tuple | list) else (item, None)
        picture = payload.picture(image, target if targets is None else targets[index], next(iter(sizes), None))
        picture_bytes += len(picture["jpeg"]) + len(picture["parts"] or b"")
        if picture_bytes + sum(map_bytes if all_or_none else map_bytes[:count]) > limit * 1e6:
            if pictures and not all_or_none:
                break
            needed = (sum(map_bytes) + picture_bytes * len(chosen) / count) / 1e6
            raise ValueError(
                f"{len(chosen)} images with {sum(len(maps.maps[0]) for maps in shipped)} maps each take about "
                f"{needed:.1f} MB, more than {limit:g}: give fewer indices or classes"
            )
        pictures.append(picture)
    return pictures
