"""Rebuild the shipped class tree of COCO from WordNet's own edges."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from wsolnb.data.taxonomy import Taxonomy, prune_to_tree, read_edges


def build_coco_taxonomy(edge_file: str | Path) -> Taxonomy:
    """Prune WordNet 3.0 to the tree of COCO's classes, as it is shipped.

    Takes the hand-made table `tables/coco_synsets.tsv` (class, offset, synset) and gives every node its
    readable name. To write the shipped table again:

        write_edges(build_coco_taxonomy("wordnet.parent-child.txt"), "coco_tree.tsv", notice)

    Args:
        edge_file: WordNet 3.0's noun hypernyms, one "parent child" per line, as offsets like "n02084071".

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is no edge, or the edges do not reach a class.
    """
    text = (resources.files("wsolnb.data") / "tables" / "coco_synsets.tsv").read_text(encoding="utf-8")
    rows = [line.split("\t") for line in text.splitlines() if not line.startswith("#")][1:]
    classes = {offset: name for name, offset, _ in rows if name}
    nodes = {offset: name or synset for name, offset, synset in rows}
    return prune_to_tree(read_edges(edge_file), list(classes)).renamed(nodes)


def write_edges(taxonomy: Taxonomy, path: str | Path, notice: str = "") -> None:
    """Write a tree as tab-separated "parent child" lines that `read_edges` reads, sorted, `notice` on top.

    Args:
        taxonomy: the tree.
        path: file to write.
        notice: text that goes above the edges, line by line after a #.
    """
    head = [f"# {line}".rstrip() for line in notice.splitlines()]
    body = sorted(f"{parent}\t{child}" for child, parent in taxonomy.parents.items())
    Path(path).write_text("\n".join([*head, *body]) + "\n", encoding="utf-8")
