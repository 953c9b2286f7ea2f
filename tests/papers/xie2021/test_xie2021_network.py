"""ORNet's two stages: what sees what, what learns and what stays, inference by the shallow part; soft maps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from wsolnb.boxes import BoxRule
from wsolnb.data.critters import World
from wsolnb.localization.locate import tune_and_evaluate
from wsolnb.localization.maps import LocalizationMaps, as_probabilities
from wsolnb.localization.read import read_objects
from wsolnb.models.backbones import backbone
from wsolnb.models.cam import Classifier, classifier
from wsolnb.papers.xie2021.erasing import Erasing
from wsolnb.papers.xie2021.losses import RefinementLoss, TwoHeads
from wsolnb.papers.xie2021.maps import decided_fraction, evidence, generator_readers, threshold_range
from wsolnb.papers.xie2021.network import SHALLOW, Generator, StageOne, StageTwo, frozen, stage_one
from wsolnb.train import AdamPlan, Plan, train
from wsolnb.train.plans import groups

IMAGES = torch.rand(2, 3, 48, 80, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def first() -> StageOne:
    return stage_one("tiny", 5, stage="block2", width=4).eval()


@pytest.fixture
def evaluator() -> Classifier:
    return frozen(classifier("tiny", 5, seed=1))


class TestGenerator:
    @pytest.mark.parametrize("size", [(8, 16), (12, 20), (9, 17)])
    def test_map_has_the_size_of_the_features(self, size: tuple[int, int]) -> None:
        with torch.no_grad():
            evidence, maps = Generator(6, classes=3, width=4)(torch.rand(2, 6, *size))
        assert evidence.shape == (2, 3, *size)
        assert maps.shape == (2, 1, *size)
        assert 0 <= float(maps.min()) <= float(maps.max()) <= 1

    def test_widths_are_those_of_the_released_code(self) -> None:
        generator = Generator(64, classes=200)
        shapes = {name: tuple(p.shape[:2]) for name, p in generator.named_parameters() if p.ndim == 4}
        assert list(shapes.values()) == [
            (128, 64), (128, 128), (256, 128), (256, 256), (512, 256), (512, 512),
            (256, 768), (256, 256), (192, 384), (192, 192), (200, 256), (200, 200), (1, 200), (200, 200),
        ]  # fmt: skip

    def test_map_is_the_sigmoid_of_a_normalised_convolution(self) -> None:
        generator = Generator(6, classes=3, width=4).eval()
        evidence, maps = generator(torch.rand(2, 6, 8, 16))
        conv, norm = generator.attend
        raw = nn.functional.conv2d(evidence, conv.weight, padding=1)
        by_hand = (raw - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
        torch.testing.assert_close(maps, by_hand.sigmoid())

    def test_side_scores_are_averages_of_a_convolution(self) -> None:
        generator = Generator(6, classes=3, width=4)
        evidence = torch.rand(2, 3, 8, 16)
        by_hand = torch.einsum("kc,bchw->bk", generator.side.weight[:, :, 0, 0], evidence) / (8 * 16)
        torch.testing.assert_close(generator.side_scores(evidence), by_hand)

    def test_bad_input_is_refused(self) -> None:
        with pytest.raises(ValueError, match="features of 7 x 16 cells cannot be halved three times"):
            Generator(6, classes=3, width=4)(torch.rand(2, 6, 7, 16))
        with pytest.raises(ValueError, match="at least one of width, got 0"):
            Generator(6, classes=3, width=0)


class TestStageOne:
    @pytest.mark.parametrize("name", sorted(SHALLOW.keys() - {"vgg16_gap", "googlenet_gap", "resnet50_se"}))
    def test_default_stages_exist_and_are_shallow(self, name: str) -> None:
        network = backbone(name)
        stage = SHALLOW[name]
        assert stage in network.stages
        assert stage != list(network.stages)[-1]
        assert network.strides[stage] <= 8

    def test_masks_the_low_level_features(self, first: StageOne) -> None:
        with torch.inference_mode():
            stages, features = first.backbone.stages, first.backbone.stage_features(IMAGES, "block2")["block2"]
            evidence, maps = first.generator(features)
            by_hand = first.head(stages["block3"](features * maps).mean(dim=(2, 3)))
            scores, side = first(IMAGES)
            torch.testing.assert_close(scores, by_hand)
            torch.testing.assert_close(side, first.generator.side_scores(evidence))
            torch.testing.assert_close(first.maps(IMAGES), maps)

    def test_both_heads_teach_the_generator(self, first: StageOne) -> None:
        for k in (0, 1):
            first.zero_grad()
            first.train()(IMAGES)[k].square().sum().backward()
            assert first.generator.up3[0].weight.grad is not None
            assert float(first.generator.up3[0].weight.grad.abs().sum()) > 0
            attends = first.generator.attend[0].weight.grad
            learns = attends is not None and float(attends.abs().sum()) > 0
            assert learns == (k == 0), "only the classifier sees the map"

    def test_inference_runs_nothing_behind_the_shallow_stages(self, first: StageOne) -> None:
        first.backbone.stages["block3"] = nn.Sequential(_Forbidden())
        assert first.maps(IMAGES).shape == (2, 1, 12, 20)

    def test_same_seed_same_weights_and_no_trace_in_the_global_state(self) -> None:
        torch.manual_seed(3)
        expected = torch.rand(1)
        torch.manual_seed(3)
        nets = [stage_one("tiny", 4, width=4, seed=7) for _ in range(2)]
        assert torch.equal(torch.rand(1), expected)
        for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
            assert torch.equal(a, b)

    def test_stages_that_do_not_fit_are_refused(self) -> None:
        with pytest.raises(ValueError, match="tiny has no stage 'layer1'; its stages are block1, block2, block3"):
            stage_one("tiny", 4, stage="layer1")
        with pytest.raises(ValueError, match="'block3' is the last stage of tiny"):
            stage_one("tiny", 4, stage="block3")
        with pytest.raises(ValueError, match="no shallow stage of squeezenet1_0 is known: choose one of block1"):
            stage_one("squeezenet1_0", 4)


class TestStageTwo:
    def test_evaluator_sees_the_masked_image(self, first: StageOne, evaluator: Classifier) -> None:
        two = StageTwo(first, evaluator)
        with torch.inference_mode():
            maps = first.maps(IMAGES)
            outputs = two(IMAGES)
            mask = maps.repeat_interleave(4, 2).repeat_interleave(4, 3)
            normal = (IMAGES - evaluator.backbone.mean) / evaluator.backbone.std * mask
            for stage in evaluator.backbone.stages.values():
                normal = stage(normal)
            by_hand = evaluator.head(normal.mean(dim=(2, 3)))
        torch.testing.assert_close(outputs.maps, maps)
        torch.testing.assert_close(outputs.scores, by_hand, rtol=1e-4, atol=1e-5)

    def test_mask_fades_to_the_mean_colour_of_either_channel_order(self, first: StageOne) -> None:
        for convention in ("torchvision", "tensorflow", "caffe"):
            two = StageTwo(first, frozen(classifier("tiny", 5, convention=convention)))
            blank = two.masked(IMAGES, torch.zeros(2, 1, 3, 5))
            assert float(two.evaluator.backbone.normalise(blank).abs().max()) < 1e-5
            assert torch.allclose(two.masked(IMAGES, torch.ones(2, 1, 3, 5)), IMAGES, atol=1e-6)

    def test_class_is_told_from_the_image_as_it_is(self, first: StageOne, evaluator: Classifier) -> None:
        two = StageTwo(first, evaluator)
        with torch.inference_mode():
            nn.init.constant_(two.generator.attend[1].bias, -50)  # every map is empty
            assert float(two.maps(IMAGES).max()) < 1e-6
            torch.testing.assert_close(two.classify(IMAGES), evaluator(IMAGES))

    def test_only_the_named_parts_learn(self, first: StageOne, evaluator: Classifier) -> None:
        two = StageTwo(first, evaluator, Erasing()).train()
        before = {name: value.clone() for name, value in two.state_dict().items()}
        optimizer = torch.optim.SGD([p for p in two.parameters() if p.requires_grad], lr=0.5)
        RefinementLoss()(two(IMAGES), torch.tensor([0, 3])).backward()
        optimizer.step()
        changed = {name for name, value in two.state_dict().items() if not torch.equal(value, before[name])}
        assert {".".join(name.split(".")[:2]) for name in changed} == {
            "generator.up2", "generator.up3", "generator.attend",
        }  # fmt: skip
        assert any("running_mean" in name for name in changed), "batch statistics of what learns follow"

    def test_erases_in_training_only_and_before_the_evaluator_alone(
        self, first: StageOne, evaluator: Classifier
    ) -> None:
        class Everything(nn.Module):
            def forward(self, maps: Tensor) -> Tensor:
                return maps * 0 if self.training else maps

        two = StageTwo(first, evaluator, Everything()).train()
        outputs = two(IMAGES)
        assert float(outputs.maps.detach().min()) > 0, "losses see the map before erasing"
        torch.testing.assert_close(outputs.scores[0], outputs.scores[1])  # nothing is left of both images
        assert not torch.allclose(*two.eval()(IMAGES).scores)

    def test_stage_one_is_left_alone(self, first: StageOne, evaluator: Classifier) -> None:
        before = first.maps(IMAGES).detach()
        two = StageTwo(first, evaluator)
        with torch.no_grad():
            two.generator.attend[1].bias += 1
            two.shallow.stages["block1"][0].weight += 1
        torch.testing.assert_close(first.maps(IMAGES), before)
        assert list(two.shallow.stages) == ["block1", "block2"]
        assert list(first.backbone.stages) == ["block1", "block2", "block3"]

    def test_other_parts_can_be_named(self, first: StageOne, evaluator: Classifier) -> None:
        two = StageTwo(first, evaluator, trainable=["generator", "shallow.stages.block2"]).train()
        learning = {".".join(n.split(".")[:3]) for n, p in two.named_parameters() if p.requires_grad}
        assert "shallow.stages.block2" in learning
        assert "shallow.stages.block1" not in learning
        assert two.shallow.stages["block2"].training
        assert not two.shallow.stages["block1"].training
        assert not two.evaluator.training

    def test_inference_runs_no_evaluator(self, first: StageOne, evaluator: Classifier) -> None:
        two = StageTwo(first, evaluator)
        evaluator.backbone.stages["block1"] = nn.Sequential(_Forbidden())
        assert two.maps(IMAGES).shape == (2, 1, 12, 20)

    def test_what_does_not_fit_is_refused(self, first: StageOne, evaluator: Classifier) -> None:
        with pytest.raises(ValueError, match=r"evaluator must be frozen.*backbone\.stages\.block1"):
            StageTwo(first, classifier("tiny", 5))
        half = frozen(classifier("tiny", 5))
        half.head.bias.requires_grad_(True)
        with pytest.raises(ValueError, match=r"frozen.*head\.bias"):
            StageTwo(first, half)
        with pytest.raises(ValueError, match="the evaluator knows 7 classes, the generator 5"):
            StageTwo(first, frozen(classifier("tiny", 7)))
        with pytest.raises(ValueError, match=r"no part 'generator\.up4' to train; it has shallow"):
            StageTwo(first, evaluator, trainable=["generator.up4"])
        with pytest.raises(ValueError, match="no part 'evaluator' to train"):
            StageTwo(first, evaluator, trainable=["evaluator"])


class _Forbidden(nn.Module):
    def forward(self, _: Tensor) -> Tensor:
        raise AssertionError("this part must not run")


class TestTraining:
    def test_both_stages_train_and_come_back_from_the_cache(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("WSOLNB_CACHE", str(tmp_path))
        torch.manual_seed(0)
        data = TensorDataset(torch.randint(256, (24, 3, 32, 40), dtype=torch.uint8), torch.arange(24) % 3)
        plan = AdamPlan(2, batch_size=12, lr=0.01)
        maps = []
        for _ in range(2):
            one = stage_one("tiny", 3, stage="block2", width=4)
            runs = [train(one, data, TwoHeads(), plan, device="cpu")]
            two = StageTwo(one, frozen(classifier("tiny", 3)), Erasing())
            runs.append(train(two, data, RefinementLoss(), plan, device="cpu"))
            maps.append(two.maps(IMAGES).detach())
        assert [run.cached for run in runs] == [True, True]
        assert torch.equal(*maps)

    def test_new_parts_learn_at_their_own_rate(self, first: StageOne) -> None:
        spared, new = groups(first, Plan(1, lr=0.01, head_rate=10))
        count = len(list(first.generator.parameters())) + len(list(first.head.parameters()))
        assert len(new["params"]) == count
        assert new["lr"] == pytest.approx(0.1)
        assert len(spared["params"]) == len(list(first.backbone.parameters()))

    def test_adam_takes_the_steps_of_an_adam_plan(self) -> None:
        weight = nn.Parameter(torch.tensor([1.0, -2.0]))
        optimizer = AdamPlan(1, lr=0.1, momentum=0.8, beta2=0.99).optimizer([{"params": [weight]}])
        assert isinstance(optimizer, torch.optim.Adam)
        weight.grad = torch.tensor([3.0, -0.001])
        optimizer.step()
        torch.testing.assert_close(weight.detach(), torch.tensor([0.9, -1.9]), rtol=0, atol=1e-4)
        assert optimizer.defaults["betas"] == (0.8, 0.99)
        with pytest.raises(ValueError, match="beta2=1: must be at least 0 and below 1"):
            AdamPlan(1, beta2=1)


def soft(values: Tensor, boxes: list[list[float]], frame: tuple[int, int] = (8, 12)) -> LocalizationMaps:
    n = len(values)
    scores = torch.eye(3)[torch.tensor([0, 0, 2, 1][:n])]
    labels, truth = torch.tensor([0, 1, 2, 1][:n]), [torch.tensor([b]) for b in boxes]
    return LocalizationMaps(values, scores, labels, truth, frame, upsample=as_probabilities)


def two_levels() -> LocalizationMaps:
    """Four maps of 4 x 6 cells, two pixels each: a core of 0.9 inside a region of 0.5 on a ground of 0.1."""
    maps = torch.full((4, 4, 6), 0.1)
    maps[:, 0:3, 0:3] = 0.5
    maps[:, 0:2, 0:2] = 0.9
    return soft(maps, [[0, 0, 6, 6], [0, 0, 6, 6], [0, 0, 4, 4], [6, 4, 12, 8]])


class TestMapsOfProbabilities:
    def test_are_enlarged_but_not_stretched(self) -> None:
        found = two_levels()
        big = found.upsampled()
        assert big.shape == (4, 8, 12)
        assert float(big.max()) == pytest.approx(0.9)
        assert float(big.min()) == pytest.approx(0.1)
        stretched = LocalizationMaps(found.maps, found.scores, found.labels, found.boxes, found.image_size).upsampled()
        assert float(stretched.max()) == 1
        assert found.subset(torch.tensor([2, 0])).upsample is as_probabilities
        assert found.subset(torch.tensor([2, 0])).boxes[0].tolist() == [[0, 0, 4, 4]]

    def test_the_decided_fraction_counts_what_lies_outside(self) -> None:
        shares = decided_fraction(two_levels().maps)
        torch.testing.assert_close(shares, torch.full((4,), (24 - 5) / 24))

    def test_boxes_are_cut_where_they_are_judged(self) -> None:
        found = two_levels()
        rule = BoxRule(0.4, reference="absolute")
        located = tune_and_evaluate(found, found, rule, thresholds=20, ks=(1, 5))
        boxes = located.boxes([0, 3])
        assert boxes.shape == (2, 4)
        again = found.cut(replace(rule, threshold=located.rule.threshold))
        torch.testing.assert_close(boxes, again[[0, 3]])

    def test_numbers_by_hand(self) -> None:
        found = two_levels()
        located = tune_and_evaluate(found, found, BoxRule(0.5, reference="absolute"), thresholds=20, ks=(1, 5))
        located = replace(located, rule=replace(located.rule, threshold=0.3))
        found_numbers = {name: float(each(torch.ones(1, 4))) for name, each in evidence(located).items()}
        # at 0.3 the box is the outer region: right for the first two images; the second's class is wrong
        assert located.correct().tolist() == [1, 1, 0, 0]
        assert found_numbers["corloc"] == 0.5
        assert found_numbers["top1_loc_err"] == 0.75
        assert found_numbers["top5_loc_err"] == 0.5
        assert found_numbers["top1_cls_err"] == 0.25
        assert found_numbers["top5_cls_err"] == 0
        assert found_numbers["certain"] == pytest.approx(19 / 24)

    def test_the_threshold_range_is_best_minus_worst_between_two_thresholds(self) -> None:
        found = two_levels()
        located = tune_and_evaluate(found, found, BoxRule(0.5, reference="absolute"), thresholds=20)
        thresholds, accuracy = located.curve()
        inside = accuracy[(thresholds > 0.19) & (thresholds < 0.81)]
        spread = float(threshold_range(located)(torch.ones(1, 4)))
        assert spread == pytest.approx(float(inside.max() - inside.min()))
        assert spread > 0
        assert float(threshold_range(located, (0.3, 0.3))(torch.ones(1, 4))) == 0
        only_third = torch.tensor([[0.0, 0.0, 4.0, 0.0]])
        assert float(threshold_range(located)(only_third)) == 1, "its box is right only above the outer region's value"
        with pytest.raises(ValueError, match=r"0\.33"):
            threshold_range(located, (0.33, 0.8))

    def test_reading_asks_the_classifier_for_the_class(self, first: StageOne, evaluator: Classifier) -> None:
        images = World(families=5, species=1, size=(48, 64)).singles(7, seed=2)
        found = read_objects(images, generator_readers({"one": first, "two": StageTwo(first, evaluator)}, evaluator))
        batch = torch.stack([images[i][0] for i in range(7)]).as_subclass(Tensor) / 255
        with torch.inference_mode():
            torch.testing.assert_close(found["one"].scores, evaluator(batch), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(found["two"].maps, first.maps(batch)[:, 0], rtol=1e-4, atol=1e-5)
        assert found["one"].labels.tolist() == [0, 1, 2, 3, 4, 0, 1]
        assert found["one"].masks["masks"].shape == (7, 48, 64)
