"""A suite of one made-up paper, `doe2000`."""

from __future__ import annotations

from pathlib import Path

import yaml

ABOUT = {"title": "T", "authors": ["D"], "year": 2000, "notebook": "1_t.ipynb", "changes": "C", "remember": "R."}
ABOUT |= {"methods": {}, "metrics": {}}


def made_up_paper(root: Path) -> Path:
    """Write the suite's folders and its paper below a folder; the paper's folder is returned."""
    (root / "notebooks").mkdir()
    folder = root / "papers" / "doe2000"
    folder.mkdir(parents=True)
    (folder / "paper.yaml").write_text(yaml.safe_dump(ABOUT))
    return folder
