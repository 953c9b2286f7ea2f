"""Every metric gives the same value in one process and in two, however the images are dealt out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from wsolnb.metrics import (
    VOCAP,
    CorLoc,
    DetectionAP,
    GuessLocalizationError,
    MaxBoxAcc,
    MaxBoxAccV2,
    PointAP,
    PxAP,
    TopLocalization,
)

IMAGES, CLASSES, SIZE = 7, 3, (9, 14)
DEALS = {
    "by turns": ([0, 2, 4, 6], [1, 3, 5]),
    "all to one": (list(range(IMAGES)), []),
    "uneven": ([5], [6, 0, 1, 2, 3, 4]),
}


def world():
    """Images with tied scores, one of them without predictions."""
    generator = torch.Generator().manual_seed(0)
    rand = lambda *shape: torch.rand(shape, generator=generator)  # noqa: E731
    images = []
    for i in range(IMAGES):
        near = (rand(3, 2) * 6).floor()
        boxes = torch.cat([near, near + 1 + (rand(3, 2) * 6).floor()], dim=1)
        labels = torch.randint(CLASSES, (3,), generator=generator)
        count = 0 if i == 4 else 3
        prediction = {"boxes": boxes[:count] + 1, "labels": labels[:count], "scores": (rand(count) * 3).floor() / 3}
        images.append(
            {
                "map": rand(*SIZE),
                "mask": rand(*SIZE) > 0.7,
                "maps": rand(CLASSES, 3, 4),
                "scores": rand(CLASSES),
                "label": labels[0],
                "prediction": prediction,
                "target": {"boxes": boxes, "labels": labels, "image_id": i},
            }
        )
    return images


def metrics():
    detection = {"classes": CLASSES}
    return {
        "box": MaxBoxAcc(0.3, thresholds=20, per_image=True),
        "box2": MaxBoxAccV2(thresholds=20),
        "px": PxAP(20, per_image=True),
        "top": TopLocalization(0.5, (1, 2), 0.3, thresholds=20),
        "corloc": CorLoc(CLASSES, 0.5, 0.3, thresholds=20),
        "point": PointAP(**detection),
        "coco": DetectionAP(**detection),
        "pairs": DetectionAP(**detection, matching="image-class"),
        "voc": VOCAP(**detection),
        "guess": GuessLocalizationError(**detection, k=2),
    }


def feed(table, images):
    for image in images:
        maps, boxes = image["map"][None], [image["target"]["boxes"]]
        scores, label, both = image["scores"][None], image["label"][None], ([image["prediction"]], [image["target"]])
        table["box"].update(maps, boxes)
        table["box2"].update(maps, boxes)
        table["px"].update(maps, image["mask"][None])
        table["top"].update(maps, boxes, scores, label)
        table["corloc"].update(maps, boxes, label)
        table["point"].update(image["maps"][None], scores, both[1], torch.tensor([SIZE]))
        for name in ("coco", "pairs", "voc", "guess"):
            table[name].update(*both)


def values(table):
    flat = {}
    for name, metric in table.items():
        result = metric.compute()
        for key, value in (result if isinstance(result, dict) else {"": result}).items():
            flat[f"{name} {key}"] = value
    return flat


def work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    images, found = world(), {}
    for name, deal in DEALS.items():
        table = metrics()
        mine = [images[i] for i in deal[rank]]
        feed(table, mine)
        if not mine:
            for metric in table.values():
                metric._update_count = 1  # a process without images still takes part; spare the warning about it
        found[name] = values(table)
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_two_processes_agree_with_one(tmp_path: Path):
    alone = metrics()
    feed(alone, world())
    expected = values(alone)
    mp.spawn(work, args=(tmp_path,), nprocs=2)
    for rank in range(2):
        for name, found in torch.load(tmp_path / f"{rank}.pt").items():
            assert found.keys() == expected.keys()
            for key, value in expected.items():
                message = f"{key} differs in process {rank} with images dealt {name}"
                torch.testing.assert_close(found[key], value, rtol=0, atol=0, equal_nan=True, msg=message)


def test_forward_gives_the_batch_and_keeps_the_whole():
    images = world()
    metric, whole = DetectionAP(CLASSES), DetectionAP(CLASSES)
    for image in images:
        alone = DetectionAP(CLASSES)
        batch = [image["prediction"]], [image["target"]]
        alone.update(*batch)
        whole.update(*batch)
        torch.testing.assert_close(metric(*batch)["mAP@0"], alone.compute()["mAP@0"], equal_nan=True)
    assert metric.compute()["mAP@0"] == whole.compute()["mAP@0"]
    assert metric.images == IMAGES


def test_metrics_survive_state_dicts_and_resets():
    table = metrics()
    feed(table, world())
    before = values(table)
    for metric in table.values():
        metric.persistent(True)
    again = metrics()
    for name, metric in again.items():
        metric.load_state_dict(table[name].state_dict())
        metric._update_count = 1
    after = values(again)
    for key, value in before.items():
        torch.testing.assert_close(after[key], value, rtol=0, atol=0, equal_nan=True, msg=key)
    for metric in table.values():
        metric.reset()
    feed(table, world())
    torch.testing.assert_close(values(table), before, rtol=0, atol=0, equal_nan=True)
