"""What stands beside measured numbers is the row of the table that is meant."""

from __future__ import annotations

import pytest

from wsolnb.runs.paper import Paper


def test_the_row_of_table_1_stands_beside_a_run() -> None:
    found = {name: dict.fromkeys(("top1_cls_error", "top5_cls_error"), 0.5) for name in ("base", "csoa")}
    table = Paper("kou2021").beside(found, "CUB-200-2011 VGG16")
    reported = [table.loc[Paper("kou2021").methods["csoa"], (metric, "reported")] for metric in found["csoa"]]
    assert reported == pytest.approx([21.41, 5.94])  # Table 4 rounds them to 21.4 and 5.9
