"""Class scores raised by those of co-occurring classes (bency2016 Eqs. 2 to 4, https://arxiv.org/abs/1603.00489)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor


def cooccurrence(present: Tensor) -> Tensor:
    """Fraction of the images with class j that show class i: `p(b_i | b_j) = |b_i ∩ b_j| / |b_j|` (bency2016 Eq. 4).

    From the classes that each training image shows, `(N, K)`: 1 or 0, NaN (counted as 0) where unknown, to float64
    `(K, K)`: row i, column j. The diagonal is 0, as Eq. 2 sums over j ≠ i, and so is the column of a class without an
    image.

    Raises:
        ValueError: If `present` is no matrix, or has other values.

    Example:
        >>> import torch
        >>> cooccurrence(torch.tensor([[1, 1], [1, 0], [0, 0]])).tolist()
        [[0.0, 1.0], [0.5, 0.0]]
    """
    if present.ndim != 2:
        raise ValueError(f"present must be a matrix (images, classes), got {tuple(present.shape)}")
    there = present.double().nan_to_num()
    if bool(((there != 0) & (there != 1)).any()):
        raise ValueError("present must hold 0, 1 or NaN")
    both = there.T @ there
    return (both / both.diagonal().clamp(min=1)).fill_diagonal_(0)


def rescore(scores: Tensor, pair: Tensor, alpha: float) -> Tensor:
    """Scores with a part of those of co-occurring classes (bency2016 Eqs. 2 and 3).

    `s_comb(b_i) = s(b_i) + α Σ_{j≠i} p(b_i | b_j) s(b_j)`, for scores `(N, K)` and `p(b_i | b_j)` `(K, K)` from
    `cooccurrence`, in the dtype of the scores. `alpha=0` changes nothing.

    Raises:
        ValueError: If the shapes do not fit or `alpha` is negative.

    Example:
        >>> import torch
        >>> rescore(torch.tensor([[0.5, 0.25]]), cooccurrence(torch.tensor([[1, 1], [1, 0]])), alpha=2.0)
        tensor([[1.0000, 0.7500]])
    """
    if scores.ndim != 2 or pair.shape != (scores.shape[1], scores.shape[1]):
        raise ValueError(f"scores {tuple(scores.shape)} and pairs {tuple(pair.shape)} do not fit: (N, K) and (K, K)")
    if alpha < 0:
        raise ValueError(f"alpha={alpha}: must be at least 0")
    return (scores.double() + alpha * scores.double() @ pair.T.to(scores.device)).to(scores.dtype)


def tune_alpha(
    scores: Tensor, pair: Tensor, alphas: Sequence[float], value: Callable[[Tensor], float]
) -> dict[float, float]:
    """Value of every weight `α` on held-out images, in the order given (bency2016 Sec. 3.2).

    `scores` `(N, K)` are of images that the classifier was not trained on, `pair` is from the training images; `value`
    maps scores to what is maximised, such as mean average precision. With 0 among the weights the best one,
    `max(curve, key=curve.get)`, does no harm on these images.

    Example:
        >>> import torch
        >>> scores, pair = torch.tensor([[0.5, 0.25]]), cooccurrence(torch.tensor([[1, 1], [1, 0]]))
        >>> tune_alpha(scores, pair, [0.0, 1.0], lambda s: float(s[0, 1] - s[0, 0]))
        {0.0: -0.25, 1.0: -0.25}
    """
    return {alpha: value(rescore(scores, pair, alpha)) for alpha in alphas}
