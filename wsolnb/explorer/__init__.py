"""The explorer: maps, dense class maps and boxes under the reader's hand, in JupyterLab and in a page without a kernel.

Everything that follows a slider is computed in the browser, number for number as this package computes it; Python can
read, set and observe the state, and ships maps and images once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import anywidget
import pandas as pd
import torch
import traitlets as t

from wsolnb._utils.progress import headless
from wsolnb.boxes import BoxRule, iou
from wsolnb.explorer import payload
from wsolnb.explorer.colours import HEAT, class_colours, greys
from wsolnb.explorer.state import ANY, View, found_boxes

__all__ = ["Explorer"]

_HERE = Path(__file__).parent
_PARTS = ("rules.js", "dense.js", "canvas.js", "controls.js", "scene.js", "panel.js", "explorer.js")
LIMIT = 16.0  # MB that a page is given to carry


class Explorer(anywidget.AnyWidget):
    """Compare methods on the same images, with every threshold live.

    State, which Python may read, set and `observe`: `image` (index of the image shown), `labels` (indices of the
    classes shown; empty for all present), `methods` (shown side by side), `thresholds` and `presences` (by method:
    threshold of the box rule, and the score above which a class is present), `sim_threshold` (of dense class maps),
    `reference` (`"rule"`: each rule's own, `"maximum"` or `"percentile"`) and `percentile`, `view` (`"map"`,
    `"region"`: what exceeds the threshold, or `"classes"`: the dense class map where a method has one), `opacity`,
    `truth` and `parts` (whether true boxes and the outlines of parts are drawn).

    Args:
        images: Images `(3, H, W)`, or a data set of `(image, target)`, which then also gives the truth.
        maps: By method: maps `(N, C, h, w)` or one `(C, h, w)` per image; `(N, h, w)` for maps that belong to no class
            or to the true one; or what holds them (`SceneMaps`, `LocalizationMaps`, or `LocalizationResult`, which brings its rule).
            For images that were brought to a frame, truth is brought to it too.
        classes: Their names.
        targets: Truth of every image (`boxes`, `labels`, and where known `masks` and `mark_masks`), instead of that of
            the data set.
        rules: A box rule for all methods, or one by method; the default is `BoxRule.preset("cam")`, and `"dcm"` for
            dense methods.
        dense: Methods whose maps are similarities of dense class embeddings; by default those named `dcm...`.
        indices: Images to take; by default all.
        first: Take at most so many of them, and only as many as fit into `limit`, instead of refusing them all.
        presence: The score above which a class is present, for all methods or by method.
        limit: Largest payload in MB.
        **state: Any of the state above, to start from.

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

    _esm = "\n".join((_HERE / part).read_text(encoding="utf-8") for part in _PARTS)
    _css = (_HERE / "explorer.css").read_text(encoding="utf-8")

    _wsolnb = t.Unicode("explorer").tag(sync=True)
    _pictures: t.List[Any] = t.List().tag(sync=True)
    _readings = t.Dict().tag(sync=True)
    _rules = t.Dict().tag(sync=True)
    _order: t.List[Any] = t.List().tag(sync=True)  # of the methods: a stored state has its names sorted
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
        read = {name: payload.read(name, each, len(images), len(classes), chosen) for name, each in maps.items()}
        if targets is not None and len(targets) != len(images):
            raise ValueError(f"there are targets of {len(targets)} images, but {len(images)} images")
        dense = [name for name in maps if name.startswith("dcm")] if dense is None else list(dense)
        if unknown := set(dense) - set(maps):
            raise ValueError(f"dense names {sorted(unknown)}, but the methods are {', '.join(maps)}")
        pictures = _pictures(images, targets, chosen, read, limit, all_or_none=first is None)
        read = {name: each.first(len(pictures)) for name, each in read.items()}
        if first is not None and "image" in state:
            state["image"] = min(state["image"], len(pictures) - 1)
        known = {name: _rule(name, rules, read[name], name in dense) for name in maps}
        presences = {name: presence[name] if isinstance(presence, Mapping) else presence for name in maps
                     if not isinstance(presence, Mapping) or name in presence}  # fmt: skip
        with_defaults = {
            "methods": list(maps),
            "thresholds": {name: rule.threshold for name, rule in known.items()},
            "presences": {name: float(presences.get(name, 0.5)) for name in maps},
        }
        self._explored = View(read, known, frozenset(dense))
        super().__init__(
            _pictures=pictures,
            _readings={name: payload.pack(each) | {"dense": name in dense} for name, each in read.items()},
            _rules={name: asdict(rule) for name, rule in known.items()},
            _order=list(read),
            _classes=list(classes),
            _colours=class_colours(len(classes)),
            _greys=greys() if any(rule.colour_map for rule in known.values()) else [],
            **(with_defaults | _merged(with_defaults, state)),
        )

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Explorer:
        """An explorer out of the state that a notebook keeps of it, with the bytes of its buffers in place."""
        rules = {name: BoxRule(**_tuples(fields)) for name, fields in state["_rules"].items()}
        read = {name: payload.unpack(state["_readings"][name]) for name in state["_order"]}
        dense = frozenset(name for name in read if state["_readings"][name]["dense"])
        self = cls.__new__(cls)
        self._explored = View(read, rules, dense)
        known = set(cls.class_trait_names(sync=True)) - set(anywidget.AnyWidget.class_trait_names(sync=True))
        anywidget.AnyWidget.__init__(self, **{name: state[name] for name in known & set(state)})
        return self

    @t.validate("image")
    def _valid_image(self, proposal: Any) -> int:
        if not 0 <= proposal["value"] < len(self._pictures):
            raise t.TraitError(f"image {proposal['value']} is none of the {len(self._pictures)} images here")
        return int(proposal["value"])

    @t.validate("labels")
    def _valid_labels(self, proposal: Any) -> list[int]:
        wrong = [label for label in proposal["value"] if not 0 <= label < len(self._classes)]
        if wrong:
            raise t.TraitError(f"labels {wrong} are none of the {len(self._classes)} classes")
        return list(proposal["value"])

    @t.validate("methods", "thresholds", "presences")
    def _valid_methods(self, proposal: Any) -> Any:
        unknown = [name for name in proposal["value"] if name not in self._readings]
        if unknown:
            raise t.TraitError(f"no method {', '.join(unknown)} here; there are {', '.join(self._readings)}")
        if isinstance(proposal["value"], Mapping):
            return {**getattr(self, proposal["trait"].name), **proposal["value"]}
        return proposal["value"]

    def rule(self, method: str) -> BoxRule:
        """The box rule of a method as it stands now, with threshold and reference of the state."""
        rule = replace(self._explored.rules[method], threshold=self.thresholds[method])
        if self.reference == "maximum":
            return replace(rule, reference="maximum")
        if self.reference == "percentile":
            return replace(rule, reference="percentile", percentile=self.percentile)
        return rule

    def table(self, image: int | None = None) -> pd.DataFrame:
        """The boxes shown, computed here: the browser shows the same ones.

        Args:
            image: Index of the image; by default the one shown.

        Returns:
            One row per box: `method`, `label` (the class, or "any"), `score` (NaN where unknown), `x0`, `y0`, `x1`,
            `y1` in pixels, and `iou` with the best true box of the class (NaN where the class is not there).
        """
        index = self.image if image is None else image
        shown = self._pictures[index]
        truth = torch.tensor(shown["boxes"]).reshape(-1, 4)
        labels = torch.tensor(shown["labels"], dtype=torch.int64)
        rows = []
        for method in self.methods:
            presence = self.presences.get(method, 0.5)
            each = found_boxes(self._explored, method, index, self.rule(method), self.labels, presence, shown)
            for label, score, box in each:
                same = truth if label == ANY else truth[labels == label]
                overlap = float(iou(box[None], same).max()) if len(same) else float("nan")
                name = "any" if label == ANY else self._classes[label]
                rows.append((method, name, score, *box.tolist(), overlap))
        return pd.DataFrame(rows, columns=["method", "label", "score", "x0", "y0", "x1", "y1", "iou"])

    def png(self, *, height: int = 300, colours: int = 256) -> bytes:
        """A picture of the current view as PNG: the image with its truth, and every method shown.

        Args:
            height: Of every panel, in pixels.
            colours: Size of the palette; fewer make a smaller file.
        """
        from wsolnb.explorer.picture import draw, encode

        return encode(draw(self, self.image, height), colours)

    def open(self) -> None:
        """Connect to the page, where there is one."""
        if live():
            super().open()

    def __repr__(self) -> str:
        return f"Explorer({len(self._pictures)} images, {len(self._classes)} classes, {' + '.join(self._readings)})"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        import base64

        bundle: dict[str, Any] = {"text/plain": repr(self)}
        if self.comm is not None:
            shown = super()._repr_mimebundle_(**kwargs)
            bundle |= shown[0] if isinstance(shown, tuple) else shown or {}
        bundle["image/png"] = base64.b64encode(self.png(height=150, colours=64)).decode()
        return bundle, {}


def live() -> bool:
    """Whether widgets are wanted: not in a headless run, unless `WSOLNB_WIDGETS` says that its page will be kept.

    Example:
        >>> from unittest.mock import patch
        >>> with patch.dict(os.environ, WSOLNB_WIDGETS="1"):
        ...     live()
        True
    """
    wanted = os.environ.get("WSOLNB_WIDGETS", "")
    return wanted not in ("", "0") if wanted else not headless()


def _pictures(
    images: Any,
    targets: Any,
    chosen: Sequence[int],
    read: Mapping[str, payload.Reading],
    limit: float,
    all_or_none: bool,
) -> list[dict[str, Any]]:
    """The pictures that fit into the limit with their maps; all of them, or an error as soon as that is clear."""
    frames = {each.frame for each in read.values()} - {None}
    if len(frames) > 1:
        raise ValueError(f"the maps belong to images of different sizes: {sorted(frames)}")  # type: ignore[type-var]
    weights = [sum(2 * each.maps[k].numel() for each in read.values()) for k in range(len(chosen))]
    pictures: list[dict[str, Any]] = []
    shipped = 0  # bytes of pictures
    for count, index in enumerate(chosen, 1):
        item = images[index]
        image, target = item if isinstance(item, tuple | list) else (item, None)
        shown = payload.picture(image, target if targets is None else targets[index], next(iter(frames), None))
        shipped += len(shown["jpeg"]) + len(shown["parts"] or b"")
        if shipped + sum(weights if all_or_none else weights[:count]) > limit * 1e6:
            if pictures and not all_or_none:
                break
            needed = (sum(weights) + shipped * len(chosen) / count) / 1e6
            said = f"{len(chosen)} images with {sum(len(each.maps[0]) for each in read.values())} maps each"
            raise ValueError(f"{said} take about {needed:.1f} MB, more than {limit:g}: give fewer indices or classes")
        pictures.append(shown)
    return pictures


def _rule(name: str, rules: BoxRule | Mapping[str, BoxRule] | None, read: payload.Reading, dense: bool) -> BoxRule:
    if isinstance(rules, BoxRule):
        return rules
    if rules and name in rules:
        return rules[name]
    return read.rule or BoxRule.preset("dcm" if dense else "cam")


def _tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def _merged(defaults: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    """State given to the constructor; what is given by method goes over the defaults."""
    return {
        name: {**defaults[name], **value} if isinstance(defaults.get(name), dict) else value
        for name, value in state.items()
    }
