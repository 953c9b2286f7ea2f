"""Class-balanced batches: balance, seeds, epochs, several processes, and what cannot be shared out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given, strategies as st
from torch.utils.data import DataLoader, TensorDataset

from wsolnb.papers.kou2021.sampler import ClassBalanced

LABELS = torch.tensor([k for k in range(20) for _ in range(6 + k)])  # 20 classes of 6 to 25 images


def test_the_papers_batches() -> None:
    batches = list(ClassBalanced(LABELS))
    assert len(batches) == -(-len(LABELS) // 48)
    for batch in batches:
        counts = Counter(LABELS[batch].tolist())
        assert len(set(batch)) == 48
        assert len(counts) == 12
        assert set(counts.values()) == {4}


@given(st.integers(2, 9), st.integers(1, 9), st.integers(1, 4), st.integers(0, 99))
def test_classes_come_up_equally_often(classes: int, chosen: int, each: int, seed: int) -> None:
    chosen = min(chosen, classes)
    labels = torch.arange(classes).repeat_interleave(5)
    batches = list(ClassBalanced(labels, chosen * each, chosen, seed=seed))
    for batch in batches:
        assert len(set(batch)) == len(batch)
        assert set(Counter(labels[batch].tolist()).values()) == {each}
    dealt = Counter(k for batch in batches for k in set(labels[batch].tolist()))
    assert max(dealt.values()) - min(dealt[k] for k in range(classes)) <= 1


def test_images_of_a_class_come_up_before_any_comes_again() -> None:
    labels = torch.arange(3).repeat_interleave(8)
    batches = list(ClassBalanced(labels, 6, 3))
    assert sorted(i for batch in batches for i in batch) == list(range(24))  # 8 is a multiple of 2: a whole pass


def test_seed_and_epoch_decide() -> None:
    first, same, other = (ClassBalanced(LABELS, seed=seed) for seed in (3, 3, 4))
    assert list(first) == list(first) == list(same)
    assert list(first) != list(other)
    before = list(first)
    first.set_epoch(1)
    assert list(first) != before
    first.set_epoch(0)
    assert list(first) == before


@pytest.mark.parametrize("replicas", [2, 4])
def test_processes_share_every_batch_by_classes(replicas: int) -> None:
    samplers = [ClassBalanced(LABELS, 24, 6, rank=rank, replicas=replicas) for rank in range(replicas)]
    for alone, *parts in zip(ClassBalanced(LABELS, 24, 6), *samplers, strict=True):
        assert sorted(image for part in parts for image in part) == sorted(alone)
        shares = [set(LABELS[part].tolist()) for part in parts]
        assert sum(map(len, shares)) == 6
        assert parts == [[alone[place] for place in sampler.share(0)[0]] for sampler in samplers]
        assert {sampler.share(0)[1] for sampler in samplers} == {24}


def test_a_process_without_a_class_is_refused() -> None:
    with pytest.raises(ValueError, match="2 classes in a batch cannot be shared by 3 processes"):
        next(iter(ClassBalanced(LABELS, 4, 2, rank=0, replicas=3)))


def _deal(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    batches = ClassBalanced(LABELS, 24, 6)
    batches.set_epoch(5)
    Path(folder, f"{rank}.txt").write_text(repr(list(batches)))
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_real_processes_deal_as_one(tmp_path: Path) -> None:
    mp.spawn(_deal, args=(str(tmp_path),), nprocs=2)
    parts = [eval((tmp_path / f"{rank}.txt").read_text()) for rank in (0, 1)]
    alone = ClassBalanced(LABELS, 24, 6)
    alone.set_epoch(5)
    assert [sorted(first + second) for first, second in zip(*parts, strict=True)] == list(map(sorted, alone))


def test_loaders_take_it() -> None:
    data = TensorDataset(torch.arange(len(LABELS)), LABELS)
    loader = DataLoader(data, batch_sampler=ClassBalanced(LABELS, 10, 5))
    indices, labels = next(iter(loader))
    assert torch.equal(LABELS[indices], labels)
    assert len(loader) == -(-len(LABELS) // 10)


def test_description_tells_trainings_apart() -> None:
    one = ClassBalanced(LABELS)
    assert repr(one) == repr(ClassBalanced(LABELS.tolist()))
    one.set_epoch(3)
    assert repr(one) == repr(ClassBalanced(LABELS))  # the epoch is no setting
    changed = LABELS.clone()
    changed[0] = 1
    others = [ClassBalanced(LABELS, 24), ClassBalanced(LABELS, 48, 16), ClassBalanced(LABELS, seed=1)]
    assert len({repr(each) for each in (one, ClassBalanced(changed), *others)}) == 5


def test_what_cannot_be_dealt_is_refused() -> None:
    with pytest.raises(ValueError, match="12 classes asked for in a batch, but the labels have only 3: lower"):
        ClassBalanced([0, 1, 2] * 20)
    with pytest.raises(ValueError, match="a batch of 10 images cannot be shared out equally to 4 classes"):
        ClassBalanced(LABELS, 10, 4)
    with pytest.raises(ValueError, match="class 7 has 2 images, but a batch takes 3 of a class"):
        ClassBalanced([5] * 4 + [7] * 2 + [9] * 6, 6, 2)
    with pytest.raises(ValueError, match=r"one row with at least one label, got shape \(0,\)"):
        ClassBalanced([])
    with pytest.raises(ValueError, match="rank 2 is out of range for 2 processes"):
        ClassBalanced(LABELS, rank=2, replicas=2)
