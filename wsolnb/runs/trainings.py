"""What a run trains: ``papers/<key>/trainings.py`` lists it for a paper, with the networks that its notebook builds.

The file has one function, ``trainings(p, data)``, which yields a :class:`Training` for each kind that the notebook
trains. ``p`` holds the notebook's parameters as attributes, ``data`` is a :class:`wsolnb.runs.images_seen.ImagesSeen`.
"""

from __future__ import annotations

import math
import runpy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from torch import nn

from wsolnb.losses import CrossEntropy
from wsolnb.runs.images_seen import Images, ImagesSeen
from wsolnb.runs.paper import Paper
from wsolnb.runs.run import resolve

SIDE = 224  # pixels of images whose size is not given


@dataclass(frozen=True)
class Training:
    """Trainings of one kind: they cost the same.

    Args:
        what: What is trained, in words.
        model: The network, in words.
        network: Builds it, on whatever device is torch's default. Weights that are not trained have no gradient.
        images: Number of images in an epoch.
        batch: Images per step, in all processes together.
        side: Side of the images in pixels.
        times: Number of such trainings.
        turns: Other networks, if a step may go several ways, each as often as the first.
        objective: Makes the loss.
        embed: From objective, outputs and images to what the objective's own network makes of them.
        adam: Whether the optimizer keeps two numbers per weight, not one.
        together: Images of a batch that must stay in one process.
        whole_batches: Whether the last batch of an epoch is as large as the others.
    """

    what: str
    model: str
    network: Callable[[], nn.Module]
    images: Images
    epochs: int
    batch: int
    side: int
    times: int = 1
    turns: tuple[Callable[[], nn.Module], ...] = ()
    objective: Callable[[], Any] = CrossEntropy
    embed: Callable[[Any, Any, Any], Any] | None = None
    adam: bool = False
    together: int = 1
    whole_batches: bool = False

    @property
    def steps(self) -> int | None:
        """Steps of all trainings of this kind, or None if the number of images is unknown.

        Example:
            >>> from wsolnb.models.cam import classifier
            >>> images = Images(100, 5)
            >>> Training("cam", "tiny", lambda: classifier("tiny", 5), images, 6, batch=32, side=64, times=2).steps
            48
        """
        number = self.images.number
        return None if number is None else self.times * self.epochs * math.ceil(number / self.batch)

    @property
    def seen(self) -> int | None:
        """Images that go through the network in all trainings of this kind, each as often as it does."""
        number = self.images.number
        if self.whole_batches and self.steps is not None:
            return self.steps * self.batch
        return None if number is None else self.times * self.epochs * number

    def share(self, processes: int) -> int:
        """Images of a batch in the process that has most of them.

        Example:
            >>> from wsolnb.models.cam import classifier
            >>> build = lambda: classifier("tiny", 5)
            >>> training = Training("csoa", "tiny", build, Images(100, 5), 6, 48, 64, together=4)
            >>> [training.share(processes) for processes in (1, 2, 8)]
            [48, 24, 8]
        """
        return self.together * math.ceil(self.batch / self.together / processes)


@dataclass(frozen=True)
class Budget:
    """What a run trains."""

    data: ImagesSeen
    parameters: dict[str, Any] = field(repr=False)  # all of them
    trainings: list[Training] = field(repr=False)


def budget(source: str, parameters: Mapping[str, object] | None = None, *, recipe: str | None = None) -> Budget:
    """Work out what a run of a paper trains; arguments as for :func:`wsolnb.runs.run.run`.

    Raises:
        ValueError: If paper, recipe or a parameter is unknown, a value does not fit its type or its network, or
            ``trainings.py`` does not fit the notebook.
        FileNotFoundError: If ``data_root``, ``metadata`` or ``trainings.py`` does not exist.

    Example:
        >>> [(training.what, training.steps) for training in budget("primer", recipe="smoke").trainings]
        [('average and maximum pooling', 6)]
    """
    if source.endswith(".ipynb"):
        raise ValueError(f"{source}: only what a paper's trainings.py lists can be estimated, give the paper's key")
    path = Paper(source).folder / "trainings.py"
    if not path.is_file():
        raise FileNotFoundError(f"no {path}, which lists what the notebook trains")
    values = resolve(source, parameters, recipe=recipe).parameters
    data = ImagesSeen(values, recipe)
    try:
        listed = list(runpy.run_path(str(path))["trainings"](SimpleNamespace(**values), data))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} does not fit the notebook: {error!r}") from error
    some = [each for each in listed if each.times and each.epochs and each.images.number != 0]
    return Budget(data, values, some)


def body_options(p: Any) -> dict[str, Any]:
    """A notebook's parameters that shape a backbone, as options of :func:`wsolnb.models.backbones.backbone`.

    Example:
        >>> body_options(SimpleNamespace(stride=0, convention="caffe"))
        {'convention': 'caffe'}
    """
    given = {name: getattr(p, name) for name in ("stride", "convention", "freeze_norm") if hasattr(p, name)}
    return {name: value for name, value in given.items() if value}
