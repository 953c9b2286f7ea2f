"""Class embeddings: the targets of the cosine loss (barz2022, https://doi.org/10.5220/0010760800003124)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

TOLERANCE = 1e-6  # on symmetry, the diagonal and the smallest eigenvalue; similarities may come in float32


def one_hot(classes: int) -> Tensor:
    """One-hot class embeddings `(C, C)`, float32 (barz2022 Sec. 3.1).

    Raises:
        ValueError: Fewer than one class.

    >>> one_hot(2).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    if classes < 1:
        raise ValueError(f"one-hot embeddings need at least one class, got {classes}")
    return torch.eye(classes)


def semantic_embeddings(similarity: np.ndarray | Tensor, dims: int | None = None) -> Tensor:
    """Class embeddings with given cosine similarities (barz2019; barz2022 Sec. 4.1).

    Exact (`dims=None`): the lower Cholesky factor E of the similarities S, `E @ E.T = S`, to which barz2019's
    construction, one class after the other on the unit sphere, leads. Entries depend on the order of the classes, their
    products do not.

    Low rank (`dims` < C): the eigenvectors of the largest eigenvalues, times the root of the eigenvalue: the best
    approximation of S in so few dimensions. Rows are scaled to length 1, as Eq. 5 divides by the length and Eq. 7
    compares classes.

    Similarities `(C, C)`, such as `Taxonomy.similarity`, to `(C, dims)` float32 on the CPU, with rows of length 1.

    Raises:
        ValueError: `similarity` is not square, symmetric, finite, positive definite and 1 on the diagonal; `dims` is
            out of range, or so small that a class has no direction left.

    >>> import numpy as np
    >>> embeddings = semantic_embeddings(np.array([[1.0, 0.6], [0.6, 1.0]]))
    >>> [[round(x, 4) for x in row] for row in embeddings.tolist()]
    [[1.0, 0.0], [0.6, 0.8]]
    """
    s = torch.as_tensor(similarity).detach().cpu().double().numpy()
    _check(s)
    eigenvalues, vectors = np.linalg.eigh(s)
    if eigenvalues[0] < TOLERANCE:
        raise ValueError(
            f"the {len(s)} x {len(s)} similarity matrix is not positive definite, its smallest eigenvalue is "
            f"{eigenvalues[0]:.3g}: the class graph it comes from is no tree. Prune the graph to a tree with "
            "wsolnb.data.taxonomy.prune_to_tree and name every class once"
        )
    if dims is None:
        return torch.from_numpy(np.linalg.cholesky(s)).float()
    if not 1 <= dims <= len(s):
        raise ValueError(f"dims must be between 1 and the number of classes, {len(s)}, got {dims}")
    embeddings = vectors[:, -dims:] * np.sqrt(eigenvalues[-dims:])
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    if lengths.min() < TOLERANCE:
        raise ValueError(
            f"{dims} dimensions leave class number {lengths.argmin()} of {len(s)} without a direction; "
            "take more dimensions, or dims=None for exact embeddings"
        )
    return torch.from_numpy(embeddings / lengths).float()


def _check(s: np.ndarray) -> None:
    if s.ndim != 2 or s.shape[0] != s.shape[1] or not len(s):
        raise ValueError(f"the similarities of C classes form a (C, C) matrix, got shape {s.shape}")
    if not np.isfinite(s).all():
        raise ValueError(f"the similarity matrix of shape {s.shape} contains values that are not finite")
    difference = np.abs(s - s.T)
    if difference.max() > TOLERANCE:
        i, j = map(int, np.unravel_index(difference.argmax(), s.shape))
        raise ValueError(f"similarities must be symmetric, but S[{i},{j}]={s[i, j]:g}, S[{j},{i}]={s[j, i]:g}")
    off = np.abs(np.diagonal(s) - 1)
    if off.max() > TOLERANCE:
        i = int(off.argmax())
        raise ValueError(f"every class has similarity 1 with itself, but S[{i},{i}]={s[i, i]:g}")
