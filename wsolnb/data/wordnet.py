"""A class tree from WordNet, by the names of the classes, with the library `wn` (extra `wordnet`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from wsolnb.data.taxonomy import Edge, Taxonomy, prune_to_tree

_ROOT = "root"
_DATA = "oewn:2024"


def wordnet_taxonomy(classes: Sequence[str]) -> tuple[Taxonomy, list[str]]:
    """The tree of the hypernyms of classes in WordNet, pruned as `prune_to_tree` does, and the names without an entry.

    A name stands for the first noun sense of its entry; case, `_` and `-` do not matter, and a plural has the entry of
    its singular. Names without an entry hang directly below the root. The database is the first English one that `wn`
    has.

    Where there are several roots, a common one is put above them.

    Raises:
        ModuleNotFoundError: If `wn` is not installed.
        ValueError: If it has no English database, or that has none of the names.

    Example:
        >>> tree, unknown = wordnet_taxonomy(["tabby_cat", "dog", "Mx-7"])  # doctest: +SKIP
        >>> tree.lowest_common_subsumer("tabby_cat", "dog"), unknown  # doctest: +SKIP
        ('carnivore (oewn-02077948-n)', ['Mx-7'])
    """
    remedy = "or give a file with one 'parent child' per line as taxonomy"
    try:
        import wn
        from wn.morphy import Morphy
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"a class tree from WordNet needs the extra 'wordnet': pip install 'wsolnb[wordnet]', {remedy}"
        ) from None
    lexicons = wn.lexicons(lang="en")
    if not lexicons:
        raise ValueError(f"wn has no English WordNet: fetch one with `python -m wn download {_DATA}`, {remedy}")
    net = wn.Wordnet(lexicons[0].specifier(), lemmatizer=Morphy())
    meant = {name: _first_sense(net, name) for name in classes}
    unknown = [name for name, synset in meant.items() if synset is None]
    if len(unknown) == len(meant):
        found = lexicons[0].specifier()
        raise ValueError(f"WordNet ({found}) has none of the classes {unknown[:5]}: rename them, {remedy}")
    edges: set[Edge] = set()
    by_node: dict[str, list[str]] = defaultdict(list)
    for name, synset in meant.items():
        if synset is not None:
            by_node[_node(synset)].append(name)
            edges |= _edges_above(synset)
    tops = {parent for parent, _ in edges}.union(by_node) - {child for _, child in edges}
    if len(tops) > 1 or not edges:
        edges |= {(_ROOT, top) for top in tops}
    parents = prune_to_tree(sorted(edges), list(by_node)).parents
    shared = {node: names for node, names in by_node.items() if len(names) > 1}
    tree = Taxonomy(parents).renamed({node: names[0] for node, names in by_node.items() if node not in shared})
    below = {name: node for node, names in shared.items() for name in names} | dict.fromkeys(unknown, tree.root)
    return Taxonomy(tree.parents | below), unknown


def _first_sense(net: Any, name: str) -> Any:
    """The synset of a name, or None."""
    words = net.words(name, pos="n") or net.words(name.replace("_", " ").replace("-", " ").lower(), pos="n")
    return words[0].senses()[0].synset() if words else None


def _node(synset: Any) -> str:
    return f"{synset.lemmas()[0]} ({synset.id})"


def _edges_above(synset: Any) -> set[Edge]:
    """All (parent, child) pairs on the way up."""
    edges, waiting, seen = set(), [synset], set()
    while waiting:
        child = waiting.pop()
        if child.id not in seen:
            seen.add(child.id)
            above = child.hypernyms()
            edges |= {(_node(each), _node(child)) for each in above}
            waiting += above
    return edges
