"""Class embeddings: their products are the similarities they were made from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from wsolnb.data.taxonomy import Taxonomy, coco_taxonomy
from wsolnb.papers.barz2022.embeddings import one_hot, semantic_embeddings


@st.composite
def trees_and_classes(draw: st.DrawFn) -> tuple[Taxonomy, list[str]]:
    draws = draw(st.lists(st.integers(0, 10**6), min_size=1, max_size=40))
    tree = Taxonomy({f"n{k + 1}": f"n{d % (k + 1)}" for k, d in enumerate(draws)})
    classes = draw(st.lists(st.sampled_from(list(tree.heights)), min_size=1, unique=True))
    return tree, classes


def row_by_row(s: np.ndarray) -> np.ndarray:
    """barz2019's construction: each class is placed so that its products with all before it are right."""
    e = np.zeros_like(s)
    for c in range(len(s)):
        e[c, :c] = np.linalg.solve(e[:c, :c], s[c, :c]) if c else []
        e[c, c] = np.sqrt(1 - (e[c, :c] ** 2).sum())
    return e


def test_one_hot_is_the_identity() -> None:
    torch.testing.assert_close(one_hot(3), torch.eye(3))
    with pytest.raises(ValueError, match="at least one class, got 0"):
        one_hot(0)


@given(trees_and_classes())
def test_exact_embeddings_of_any_tree(drawn: tuple[Taxonomy, list[str]]) -> None:
    tree, classes = drawn
    similarity = tree.similarity(classes)
    assert np.linalg.eigvalsh(similarity)[0] >= 1 / tree.max_height - 1e-9
    embeddings = semantic_embeddings(similarity)
    assert embeddings.dtype == torch.float32
    np.testing.assert_allclose(embeddings @ embeddings.T, similarity, atol=1e-5)
    np.testing.assert_allclose(embeddings, row_by_row(similarity), atol=1e-5)
    np.testing.assert_allclose(embeddings.norm(dim=1), 1, atol=1e-5)


@given(trees_and_classes())
def test_all_dimensions_of_the_low_rank_form_are_exact(drawn: tuple[Taxonomy, list[str]]) -> None:
    similarity = drawn[0].similarity(drawn[1])
    embeddings = semantic_embeddings(similarity, dims=len(similarity))
    np.testing.assert_allclose(embeddings @ embeddings.T, similarity, atol=1e-5)


def test_a_flat_tree_gives_one_hot() -> None:
    names = ["nine", "ten", "jack"]
    torch.testing.assert_close(semantic_embeddings(Taxonomy.flat(names).similarity(names)), one_hot(3))


def test_low_rank_rows_have_length_one_and_the_error_falls() -> None:
    tree = coco_taxonomy()
    similarity = tree.similarity(tree.leaves)
    errors = []
    for dims in (20, 40, 60, 78):
        embeddings = semantic_embeddings(similarity, dims=dims)
        assert embeddings.shape == (78, dims)
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(78))
        errors.append(np.abs((embeddings @ embeddings.T).numpy() - similarity).mean())
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-6


def test_a_tensor_is_as_good_as_an_array() -> None:
    s = torch.tensor([[1.0, 0.5, 0.0], [0.5, 1.0, 0.25], [0.0, 0.25, 1.0]], requires_grad=True)
    embeddings = semantic_embeddings(s)
    assert not embeddings.requires_grad
    torch.testing.assert_close(embeddings @ embeddings.T, s.detach())


def test_indefinite_similarity_names_the_eigenvalue_and_the_cure() -> None:
    # A graph with several parents per node: b is close to a and to c, but a and c are far apart.
    s = np.array([[1.0, 0.9, 0.0], [0.9, 1.0, 0.9], [0.0, 0.9, 1.0]])
    with pytest.raises(ValueError, match=r"smallest eigenvalue is -0\.273.*prune_to_tree"):
        semantic_embeddings(s)
    with pytest.raises(ValueError, match="smallest eigenvalue"):
        semantic_embeddings(s, dims=1)


def test_twin_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="not positive definite"):
        semantic_embeddings(np.ones((2, 2)))


@pytest.mark.parametrize(
    ("similarity", "message"),
    [
        (np.ones((2, 3)), r"got shape \(2, 3\)"),
        (np.zeros((0, 0)), r"got shape \(0, 0\)"),
        (np.array([[1, np.nan], [np.nan, 1]]), "not finite"),
        (np.array([[1, 0.2], [0.3, 1]]), r"symmetric, but S\[0,1\]=0.2, S\[1,0\]=0.3"),
        (np.array([[1, 0.2], [0.2, 0.5]]), r"S\[1,1\]=0.5"),
    ],
)
def test_bad_similarities(similarity: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        semantic_embeddings(similarity)


@pytest.mark.parametrize("dims", [0, 4])
def test_dims_out_of_range(dims: int) -> None:
    with pytest.raises(ValueError, match=f"between 1 and the number of classes, 3, got {dims}"):
        semantic_embeddings(np.eye(3), dims=dims)


def test_dims_that_leave_a_class_without_direction() -> None:
    with pytest.raises(ValueError, match="take more dimensions"):
        semantic_embeddings(np.eye(3), dims=2)
