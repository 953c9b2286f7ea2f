"""What metrics have in common that end in one ranking of judged predictions."""

from __future__ import annotations

from torch import Tensor

from wsolnb.metrics._images import ColumnMetric
from wsolnb.metrics.bootstrap import Statistic
from wsolnb.metrics.ranking import Interpolation, Ranking


class RankedMetric(ColumnMetric):
    """Average precision over the ranking that a subclass makes of its columns."""

    interpolation: Interpolation
    _ranking: Ranking

    def compute(self) -> dict[str, Tensor]:
        """``mAP`` (scalar) and ``AP`` ``(classes,)``, float64 fractions on the CPU; NaN without positives."""
        self._ranking = self._rank()
        each = self._ranking.average_precision(self.interpolation)[0]
        return {"mAP": each.nanmean(), "AP": each}

    def statistic(self) -> Statistic:
        """Mean average precision as a function of image weights, images sorted by ``image_id``."""
        self.compute()
        return self._ranking.statistic(self.interpolation)

    def _rank(self) -> Ranking:
        raise NotImplementedError
