"""A threshold for boxes where nobody drew one: the cut that splits the maps' values best."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from wsolnb.boxes import BoxRule
from wsolnb.boxes.quantise import minmax_normalise


def otsu_rule(maps: Tensor, rule: BoxRule, bins: int = 256) -> BoxRule:
    """The rule with the threshold that splits the values of all maps into two groups best (Otsu's criterion).

    Values are counted in units of the rule's reference: of each map's maximum or percentile, or absolute. The threshold
    maximises `n0 n1 (m0 - m1)²`, with sizes `n` and means `m` of the values below and above it.

    Args:
        maps: Float `(N, h, w)`, such as those of held-out photos for their own class.
        rule: How a map becomes a box; a rule that stretches maps to [0, 1] is asked for values of stretched maps.
        bins: Number of thresholds tried between 0 and 1.

    Example:
        >>> maps = torch.tensor([[[0.0, 0.1], [0.1, 0.9]], [[0.2, 0.0], [1.0, 0.8]]])
        >>> 0.2 < otsu_rule(maps, BoxRule()).threshold < 0.8
        True
    """
    values = (minmax_normalise(maps) if rule.normalise else maps).flatten(1).double()
    if rule.reference == "maximum":
        values = values / values.amax(dim=1, keepdim=True)
    elif rule.reference == "percentile":
        values = values / values.quantile(rule.percentile / 100, dim=1, keepdim=True)
    counts = torch.histc(values.nan_to_num(0, 0, 0).clamp(0, 1), bins, 0, 1)
    centres = (torch.arange(bins) + 0.5) / bins
    below, sums = counts.cumsum(0), (counts * centres).cumsum(0)
    above = below[-1] - below
    apart = (sums / below - (sums[-1] - sums) / above).nan_to_num(0, 0, 0)
    score = (below * above * apart**2)[:-1]
    best = (score >= score.max() * (1 - 1e-9)).nonzero().double().mean()  # the middle of a gap between the groups
    return replace(rule, threshold=float(best + 1) / bins)
