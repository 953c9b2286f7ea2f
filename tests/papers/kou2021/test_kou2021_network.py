"""CSoA's network: equal maps of two stages, the merge of Eq. 13, ten crops, and error rates from merged maps."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from wsolnb.boxes import BoxRule
from wsolnb.data.critters import World
from wsolnb.localization.locate import area_ratios, at_threshold, tune_and_evaluate
from wsolnb.localization.maps import LocalizationMaps
from wsolnb.localization.read import Resized
from wsolnb.metrics.bootstrap import interval
from wsolnb.models.backbones import backbone
from wsolnb.papers.kou2021.coaug import CoAug
from wsolnb.papers.kou2021.losses import CSoALoss
from wsolnb.papers.kou2021.maps import (
    RULE,
    evidence,
    merged,
    read_heads,
    read_parts,
    sure_cells,
    ten_crop_scores,
)
from wsolnb.papers.kou2021.network import TwoMaps, csoa, embedder
from wsolnb.papers.kou2021.sampler import ClassBalanced
from wsolnb.train import Plan, train

WORLD = World(families=2, species=2, size=(48, 64))
PAPERS_PLACES = [
    ("vgg16", "block4", {"stride": 16}),
    ("inception_v3", "Mixed_6b", {}),
    ("resnet18", "layer3", {"stride": 16}),
    ("mobilenet_v2", "block4", {"stride": 16}),
]


@pytest.mark.parametrize(("name", "inner", "options"), PAPERS_PLACES, ids=[row[0] for row in PAPERS_PLACES])
def test_both_maps_have_one_size_on_any_backbone(name: str, inner: str, options: dict) -> None:
    net = csoa(backbone(name, **options), 5, inner=inner, width=8).eval()
    with torch.no_grad():
        found = net(torch.rand(1, 3, 128, 192))
    assert found.inner is not None
    assert found.last.shape == found.inner.shape
    assert found.last.shape[1] == 5
    assert found.last.shape[2] < found.last.shape[3]


@pytest.mark.parametrize(("inner", "pool"), [("block1", 4), ("block2", 2), ("block3", 1)])
@pytest.mark.parametrize("size", [(48, 64), (42, 56), (33, 71)])
def test_finer_stages_of_the_tiny_net_are_pooled_to_the_size_of_the_last(
    inner: str, pool: int, size: tuple[int, int]
) -> None:
    found = csoa(backbone("tiny"), 3, inner=inner, pool=pool, width=4)(torch.rand(1, 3, *size))
    assert found.inner is not None
    assert found.inner.shape == found.last.shape


def test_logits_are_means_of_maps_and_scores_averages_over_heads() -> None:
    last = torch.tensor([[[[1.0, 3.0]], [[0.0, 0.0]]]])
    inner = torch.tensor([[[[0.0, 0.0]], [[-2.0, -4.0]]]])
    found = TwoMaps(last, inner, torch.zeros(1, 3, 8, 16))
    assert [each.tolist() for each in found.logits()] == [[[2.0, 0.0]], [[0.0, -3.0]]]
    expected = (torch.tensor([2.0, 0.0]).softmax(0) + torch.tensor([0.0, -3.0]).softmax(0)) / 2
    torch.testing.assert_close(found.scores()[0], expected)


def test_heads_are_identical_and_the_last_does_not_depend_on_the_inner_one() -> None:
    start = backbone("tiny")
    one, two = csoa(start, 4, width=8, seed=3), csoa(start, 4, inner="block3", width=8, seed=3)
    for a, b in zip(one.head["last"].parameters(), two.head["last"].parameters(), strict=True):
        assert torch.equal(a, b)
    shapes = [[tuple(p.shape) for p in two.head[k].parameters()] for k in ("last", "inner")]
    assert shapes[0] == shapes[1]
    assert [type(m) for m in two.head["inner"]] == [nn.Conv2d, nn.ReLU, nn.Conv2d, nn.ReLU, nn.Conv2d]
    assert next(one.backbone.parameters()) is not next(start.parameters())


def test_unequal_stages_say_which_and_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"'block2' with pool=1 cells have 4 pixels, behind 'block3' 8 .*, or pool=2"):
        csoa(backbone("tiny"), 4, inner="block2")
    with pytest.raises(ValueError, match="take one of the stages layer4, a backbone at another stride, or pool=2"):
        csoa(backbone("resnet18"), 4, inner="layer3")
    with pytest.raises(ValueError, match="no stage 'layer9'; its stages are block1, block2, block3"):
        csoa(backbone("tiny"), 4, inner="layer9")
    with pytest.raises(ValueError, match="width=0: must be at least 1"):
        csoa(backbone("tiny"), 4, width=0)
    net = csoa(backbone("tiny"), 4, inner="block2", pool=2, width=4)
    net.pool = 1
    with pytest.raises(ValueError, match=r"'block2' with pool=1 maps have 12x16 cells, behind 'block3' 6x8 cells"):
        net(torch.rand(1, 3, 48, 64))


def by_masks(inner: Tensor, last: Tensor, frame: tuple[int, int], theta: float, how: str) -> Tensor:
    """Eq. 13 as it stands: cut each map at a share of its maximum, then merge the masks."""
    enlarge = lambda m: nn.functional.interpolate(m[None, None], frame, mode="bilinear")[0, 0]  # noqa: E731
    cuts = []
    for maps in (inner, last):
        large = torch.stack([enlarge(each) for each in maps])
        highest = large.amax(dim=(1, 2), keepdim=True)
        cuts.append((large > theta * highest) & (highest > 0))
    return cuts[0] | cuts[1] if how == "union" else cuts[0] & cuts[1]


@pytest.mark.parametrize("how", ["union", "intersection"])
@pytest.mark.parametrize("theta", [0.0, 0.2, 0.3, 0.45, 0.9])
def test_a_cut_of_the_merged_map_is_the_merge_of_the_cuts(how: str, theta: float) -> None:
    inner, last = torch.randn(6, 3, 5), 4 * torch.randn(6, 3, 5) + 1
    last[2] = -last[2].abs()  # nothing positive: no region
    region = merged(torch.stack([last, inner], dim=1), (13, 22), how)  # type: ignore[arg-type]
    assert torch.equal(region > theta, by_masks(inner, last, (13, 22), theta, how))


def test_merging_refuses_another_word() -> None:
    with pytest.raises(ValueError, match="merged by union or intersection, not 'mean'"):
        merged(torch.ones(1, 2, 2, 3), (2, 3), "mean")  # type: ignore[arg-type]


def test_ten_crops_by_hand() -> None:
    image = torch.arange(12.0).reshape(1, 1, 3, 4).expand(1, 3, 3, 4)
    seen: list[Tensor] = []

    def score(crops: Tensor) -> Tensor:
        seen.append(crops[0, 0])
        return crops[:, :1, 0, 0]  # the pixel at the upper left

    found = ten_crop_scores(score, image, 2)
    assert {tuple(each.shape) for each in seen} == {(2, 2)}
    corners = [0, 2, 4, 6, 1]  # upper left and right, lower left and right, middle (the half pixels rounded to even)
    mirrored = [3, 1, 7, 5, 2]
    assert float(found) == pytest.approx(sum(corners + mirrored) / 10, abs=0.5)
    assert sorted(float(each[0, 0]) for each in seen)[:2] == [0, 1]
    with pytest.raises(ValueError, match="crops of 4 pixels do not fit into images of 3x4"):
        ten_crop_scores(score, image, 4)


def perfect(images: int = 12) -> LocalizationMaps:
    """The left half of every animal on one map, the right half on the other."""
    world = WORLD.singles(images, seed=3)
    masks = torch.stack([world[i][1]["masks"][0] for i in range(images)]).float()
    boxes = [world[i][1]["boxes"].as_subclass(Tensor) for i in range(images)]
    middles = torch.stack([box[0, [0, 2]].mean() for box in boxes])
    left = torch.arange(64) < middles[:, None, None]
    labels = torch.arange(images) % 4
    scores = nn.functional.one_hot(labels, 6).float()
    heads = torch.stack([masks * left, masks * ~left], dim=1)
    return LocalizationMaps(heads, scores, labels, boxes, (48, 64), upsample=merged)


def four_ways(heads: LocalizationMaps) -> dict[str, LocalizationMaps]:
    """The readings of given maps of both heads, as `read_heads` returns them."""
    both = {how: replace(heads, upsample=partial(merged, how=how)) for how in ("union", "intersection")}
    return both | {name: replace(heads, maps=heads.maps[:, head]) for head, name in enumerate(("last", "inner"))}


def test_two_halves_are_right_together_and_wrong_alone() -> None:
    found = four_ways(perfect())
    errors = {k: evidence(tune_and_evaluate(each, each, RULE, ks=(1, 5))) for k, each in found.items()}
    numbers = {k: interval(rates["gt_known_error"], 12, draws=20).value for k, rates in errors.items()}
    assert numbers["union"] == 0
    assert numbers["intersection"] == 1
    assert numbers["last"] > 0.3
    assert numbers["inner"] > 0.3
    box = found["union"].subset(torch.tensor([4, 7])).cut(BoxRule(0.5, reference="absolute"))
    truth = torch.cat([found["union"].boxes[i] for i in (4, 7)])
    assert (box - truth).abs().max() <= 1


def test_error_rates_count_class_and_box() -> None:
    found = perfect()
    scores = found.scores.clone()
    scores[0] = torch.tensor([0.1, 0.9, 0, 0, 0, 0])  # second
    scores[1] = torch.tensor([0.9, 0.1, 0.8, 0.7, 0.6, 0.5])  # sixth
    found = replace(found, scores=scores)
    rates = evidence(tune_and_evaluate(found, found, RULE, ks=(1, 5)))
    numbers = {name: interval(statistic, 12, draws=20).value for name, statistic in rates.items()}
    expected = {"top1_cls_error": 2, "top5_cls_error": 1, "top1_loc_error": 2, "top5_loc_error": 1}
    assert numbers == pytest.approx(
        {k: v / 12 for k, v in expected.items()} | {"gt_known_error": 0, "gt_known_error_oracle": 0}
    )


def test_reading_keeps_the_true_classes_maps_and_each_heads_scores() -> None:
    net = csoa(backbone("tiny"), 4, inner="block2", pool=2, width=8).eval()
    images = WORLD.singles(5)
    with torch.no_grad():
        outputs = net(images.tensors()[0].float() / 255)
    found = read_heads(net, images)
    rows = (torch.arange(5), torch.arange(5) % 4)
    torch.testing.assert_close(found["union"].maps, torch.stack([outputs.last[rows], outputs.inner[rows]], dim=1))
    torch.testing.assert_close(found["inner"].maps, outputs.inner[rows])
    for name, logits in zip(("last", "inner"), outputs.logits(), strict=True):
        torch.testing.assert_close(found[name].scores, logits.softmax(dim=1))
    for how in ("union", "intersection"):
        torch.testing.assert_close(found[how].scores, outputs.scores())
    assert (found["union"].upsampled() >= found["intersection"].upsampled()).all()
    assert set(found["union"].masks) == {"masks", "mark_masks"}
    assert list(read_heads(csoa(backbone("tiny"), 4, width=8).eval(), images)) == ["union"]


def test_crops_come_from_the_image_as_read_and_maps_from_the_whole_of_it() -> None:
    net = csoa(backbone("tiny"), 4, inner="block2", pool=2, width=8).eval()
    images = WORLD.singles(5)
    found = read_heads(net, images, image_size=64, crop=56)  # as 256 and 224
    assert found["union"].image_size == (64, 64)
    assert found["union"].maps.shape == (5, 2, 7, 7)
    with torch.no_grad():
        pixels = torch.stack([Resized(images, 64)[i][0] for i in range(5)])
        crops = ten_crop_scores(lambda x: net(x).scores(), pixels, 56)
    torch.testing.assert_close(found["union"].scores, crops)


def test_a_fixed_threshold_replaces_the_tuned_one_and_decides_on_the_size_of_boxes() -> None:
    heat = torch.zeros(1, 8, 12)
    heat[0, 2:6, 3:9], heat[0, 2:4, 3:9] = 0.5, 1.0
    heat[0, 2:4, 6:] = heat[0, 2:4, 6:].clamp(max=0.5)
    truth = (torch.zeros(1, 5), torch.tensor([0]), [torch.tensor([[3.0, 2.0, 9.0, 6.0]])], (8, 12))
    maps = LocalizationMaps(heat, *truth, upsample=merged)
    low, high = (at_threshold(tune_and_evaluate(maps, maps, RULE, ks=(1, 5)), cut) for cut in (0.3, 0.7))
    assert (float(area_ratios(low)), float(area_ratios(high))) == (1.0, 0.25)
    nothing = replace(low, maps=replace(maps, maps=-heat))
    assert float(area_ratios(nothing)) == 0
    wrong = [float(evidence(way)["gt_known_error"](torch.ones(1, 1))) for way in (low, high)]
    assert wrong == [0, 1]


def test_sure_cells_by_hand() -> None:
    heat = torch.tensor([[[6.0, 6.0, 0.0, 0.0], [0.0, 0.0, 0.0, -6.0]]])  # mean 0.75, mean distance 2.625
    mask = torch.tensor([[[True, False, False, False], [True, True, False, True]]])
    truth = (torch.zeros(1, 5), torch.tensor([0]), [torch.tensor([[0.0, 0.0, 2.0, 2.0]])], (2, 4))
    sure = sure_cells(LocalizationMaps(heat, *truth, masks={"masks": mask}))
    assert sure == {
        "surely object: precision": 0.5,
        "surely object: recall": 0.25,
        "surely background: precision": 0.0,
    }


def test_parts_are_read_for_the_images_asked_for() -> None:
    net = csoa(backbone("tiny"), 4, width=8).eval()
    images, loss = WORLD.singles(5), CoAug(embedder(backbone("tiny")), size=24)
    found = read_heads(net, images)["union"]
    parts = read_parts(loss, images, found, range(3, 99))
    expected = loss.parts(found.maps[3:], images.tensors()[0][3:].float() / 255)
    for mine, theirs in zip(parts, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_embedders_give_vectors_and_leave_their_network_alone() -> None:
    net = torchvision.models.resnet18()
    embed = embedder(net)
    images = torch.rand(2, 3, 48, 64)
    assert embed(images).shape == (2, 512)
    assert isinstance(net.fc, nn.Linear)
    assert all(not p.requires_grad for p in embed.parameters())
    assert next(net.parameters()).requires_grad
    tiny = backbone("tiny").eval()
    torch.testing.assert_close(embedder(tiny)(images), tiny(images).mean(dim=(2, 3)))
    with pytest.raises(ValueError, match="SqueezeNet has no linear layer to take off"):
        embedder(torchvision.models.squeezenet1_1())


def test_all_parts_train_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSOLNB_CACHE", str(tmp_path))
    start = backbone("tiny")
    images, targets = WORLD.singles(24).tensors()
    labels = torch.cat([t["labels"] for t in targets])
    data = torch.utils.data.TensorDataset(images, labels)
    objective = CSoALoss(alpha=1, over="mean", coaug=CoAug(embedder(start), size=24), coaug_weight=0.1)
    batches, plan = ClassBalanced(labels, 8, 4), Plan(3, lr=0.02, clip=1)
    net = csoa(start, 4, inner="block2", pool=2, width=8)
    first = train(net, data, objective, plan, batches=batches, device="cpu", precision="32-true")
    assert first.history[-1]["loss"] < first.history[0]["loss"]
    assert objective.risen == 1  # the last epoch's
    again = csoa(start, 4, inner="block2", pool=2, width=8)
    assert train(again, data, objective, plan, batches=batches, device="cpu", precision="32-true").cached
    other = csoa(start, 4, inner="block2", pool=2, width=8)
    assert not train(
        other, data, objective, plan, batches=ClassBalanced(labels, 8, 2), device="cpu", precision="32-true"
    ).cached
