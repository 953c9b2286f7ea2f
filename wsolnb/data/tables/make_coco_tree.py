"""Make coco_tree.tsv from WordNet 3.0: python make_coco_tree.py wordnet.parent-child.txt > coco_tree.tsv.

The argument has WordNet's noun hypernyms, one "parent child" per line, as offsets like "n02084071". They are pruned to
the classes of coco_synsets.tsv (class, offset, synset), which was made by hand, and every node gets its readable name.
"""

import sys
from pathlib import Path

from wsolnb.data.taxonomy import prune_to_tree, read_edges

NOTICE = """\
# The WordNet hypernyms of COCO's 80 classes, pruned to a tree (barz2022 section 4.1): parent, child.
# From WordNet 3.0, Copyright 2006 by Princeton University. All rights reserved.
# Used under the WordNet 3.0 licence, which stands in WORDNET_LICENSE.txt beside this file."""

if __name__ == "__main__":
    lines = Path(__file__).with_name("coco_synsets.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")][1:]
    classes = [offset for name, offset, _ in rows if name]
    tree = prune_to_tree(read_edges(sys.argv[1]), classes).renamed(
        {offset: name or synset for name, offset, synset in rows}
    )
    print(NOTICE, *sorted(f"{parent}\t{child}" for child, parent in tree.parents.items()), sep="\n")
