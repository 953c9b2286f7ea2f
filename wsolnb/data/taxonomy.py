"""Class trees: the similarity of two classes, and pruning a graph of concepts to a tree."""

from __future__ import annotations

import difflib
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path

import networkx as nx
import numpy as np

from wsolnb._utils.text import read_lines

Edge = tuple[str, str]

# Six of VOC's twenty classes have another name in COCO.
VOC_NAMES = {
    "airplane": "aeroplane",
    "dining table": "diningtable",
    "motorcycle": "motorbike",
    "potted plant": "pottedplant",
    "couch": "sofa",
    "tv": "tvmonitor",
}


class Taxonomy:
    """A tree of classes, and the similarity of any two of its nodes.

    The similarity of two nodes, by the height of their lowest common subsumer (barz2019 Eq. 1; barz2022 Sec. 4.1), is

        s(a, b) = 1 - height(lcs(a, b)) / max_height

    where the height of a leaf is 0, and every node, also an inner one, has similarity 1 to itself.

    Attributes:
        parents: child -> parent, for every node but the root.
        root: the one node without a parent.
        heights: node -> height.
        max_height: height of the root, over the whole hierarchy, not only over the classes used.

    Raises:
        ValueError: no edge, a cycle, or several roots.

    >>> tree = Taxonomy({"cat": "animal", "dog": "animal", "animal": "thing", "cup": "thing"})
    >>> tree.lowest_common_subsumer("cat", "dog"), tree.max_height
    ('animal', 2)
    >>> tree.similarity(["cat", "dog", "cup"]).tolist()
    [[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """

    def __init__(self, parents: Mapping[str, str]) -> None:
        if not parents:
            raise ValueError("a class tree needs at least one edge, but the mapping child -> parent is empty")
        graph = nx.DiGraph((parent, child) for child, parent in parents.items())
        order = _ordered(graph)
        self.parents: dict[str, str] = dict(parents)
        self.root: str = _single_root(graph)
        self.heights: dict[str, int] = dict.fromkeys(graph, 0)
        for node in reversed(order):
            for parent in graph.predecessors(node):
                self.heights[parent] = max(self.heights[parent], self.heights[node] + 1)
        self.max_height = self.heights[self.root]

    @classmethod
    def from_edges(cls, edges: Iterable[Edge]) -> Taxonomy:
        """A tree from (parent, child) pairs; a repeated pair counts once.

        Raises:
            ValueError: a node has several parents, or as for `Taxonomy`.

        >>> Taxonomy.from_edges([("face", "jack"), ("face", "queen")]).root
        'face'
        """
        parents: dict[str, str] = {}
        for parent, child in edges:
            other = parents.setdefault(child, parent)
            if other != parent:
                raise ValueError(
                    f"the class graph is no tree: node {child!r} has the parents {other!r} and {parent!r}; "
                    "prune the graph with prune_to_tree(edges, leaves) first"
                )
        return cls(parents)

    @classmethod
    def from_file(cls, path: str | Path) -> Taxonomy:
        """A tree from a file with one "parent child" per line, see `read_edges`."""
        edges = read_edges(path)
        try:
            return cls.from_edges(edges)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    @classmethod
    def flat(cls, names: Sequence[str], root: str = "class") -> Taxonomy:
        """The uninformative tree: all names are children of the root, any two classes have similarity 0.

        >>> Taxonomy.flat(["nine", "ten"]).similarity(["nine", "ten"]).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
        """
        return cls(dict.fromkeys(names, root))

    def __len__(self) -> int:
        return len(self.heights)

    def __contains__(self, node: object) -> bool:
        return node in self.heights

    def __repr__(self) -> str:
        return f"Taxonomy({len(self)} nodes, {len(self.leaves)} leaves, height {self.max_height})"

    @property
    def leaves(self) -> list[str]:
        """The nodes without children, in the order in which they were given."""
        return [node for node, height in self.heights.items() if height == 0]

    def path(self, node: str) -> list[str]:
        """The nodes from the root down to `node`, both included; ValueError if there is no such node.

        >>> Taxonomy({"cat": "animal", "animal": "thing"}).path("cat")
        ['thing', 'animal', 'cat']
        """
        if node not in self.heights:
            close = difflib.get_close_matches(node, self.heights, n=3)
            hint = f"the closest are {close}" if close else f"its leaves begin with {self.leaves[:3]}"
            raise ValueError(f"class {node!r} has no node in the class tree of {len(self)} nodes; {hint}")
        path = [node]
        while path[-1] != self.root:
            path.append(self.parents[path[-1]])
        return path[::-1]

    def lowest_common_subsumer(self, a: str, b: str) -> str:
        """The deepest node that is an ancestor of both, or one of them."""
        return [x for x, y in zip(self.path(a), self.path(b), strict=False) if x == y][-1]

    def similarity(self, classes: Sequence[str]) -> np.ndarray:
        """Similarity of every pair of C different nodes, leaves or inner ones.

        Returns:
            (C, C) float64, symmetric, within [0, 1], 1 on the diagonal; positive definite, with all eigenvalues at
            least 1 / max_height, because the hierarchy is a tree.

        Raises:
            ValueError: a class without a node, or named twice.
        """
        if repeated := [name for name, count in Counter(classes).items() if count > 1]:
            raise ValueError(f"every class may be named once, but {repeated} come several times")
        paths = [self.path(name) for name in classes]
        number = {node: k for k, node in enumerate(self.heights)}
        ancestors = np.full((len(paths), max(map(len, paths), default=0)), -1)
        for row, path in zip(ancestors, paths, strict=True):
            row[: len(path)] = [number[node] for node in path]
        heights = np.array(list(self.heights.values()), dtype=np.float64)
        lowest = np.full((len(paths), len(paths)), float(self.max_height))
        for level in ancestors.T:  # root first: the deepest level on which two paths agree is written last
            shared = (level[:, None] == level[None, :]) & (level >= 0)
            lowest = np.where(shared, heights[level], lowest)
        similarity = 1 - lowest / self.max_height
        np.fill_diagonal(similarity, 1.0)
        return similarity

    def renamed(self, names: Mapping[str, str]) -> Taxonomy:
        """The same tree with other names for some nodes.

        >>> Taxonomy({"tv": "device"}).renamed({"tv": "tvmonitor"}).leaves
        ['tvmonitor']
        """
        return Taxonomy({names.get(c, c): names.get(p, p) for c, p in self.parents.items()})


def read_edges(path: str | Path) -> list[Edge]:
    """Read (parent, child) pairs, one per line, separated by a tab or blanks; skips empty lines and # comments.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is not two names.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "edges.txt").write_text("animal dog")
    ...     read_edges(Path(folder) / "edges.txt")
    [('animal', 'dog')]
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'no edge file {path}: expected text lines "parent child"')
    edges = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        names = [name.strip() for name in (line.split("\t") if "\t" in line else line.split())]
        if len(names) != 2 or not all(names):
            raise ValueError(f'{path}, line {number}: expected "parent child", got {line!r}')
        edges.append((names[0], names[1]))
    return edges


def prune_to_tree(edges: Iterable[Edge], leaves: Sequence[str]) -> Taxonomy:
    """Prune the part of a concept graph above some classes to a tree (barz2022 Sec. 4.1).

    The tree starts with the classes that have exactly one path to the root. The others are added in the order given,
    each by the one of its paths that adds the fewest nodes to the tree so far. The paper does not break ties: here
    they go to the path that joins the tree farthest from the root (a dog becomes a canine, not a domestic animal),
    then to the first in alphabetical order of the nodes, read from the class upwards. Where a path meets the tree, it
    follows the tree, so that no node gets a second parent.

    Raises:
        ValueError: no class, a class without a node, a cycle, or several roots above the classes.

    >>> edges = [("thing", "tool"), ("thing", "toy"), ("tool", "saw"), ("tool", "disk"), ("toy", "disk")]
    >>> prune_to_tree(edges, ["saw", "disk"]).parents["disk"]
    'tool'
    """
    graph = nx.DiGraph(edges)
    if not leaves:
        raise ValueError("prune_to_tree needs the classes of the tree, but got none")
    if missing := [name for name in leaves if name not in graph]:
        raise ValueError(f"the class graph of {len(graph)} nodes has no node for {missing[:5]}")
    graph = graph.subgraph(set(leaves).union(*(nx.ancestors(graph, name) for name in leaves)))
    order = _ordered(graph)
    root = _single_root(graph)
    root_paths = {root: 1}
    for node in order[1:]:
        root_paths[node] = sum(root_paths[parent] for parent in graph.predecessors(node))
    upwards = graph.reverse(copy=False)
    parents: dict[str, str] = {}
    depth = {root: 0}  # of the nodes that are in the tree
    for name in sorted(leaves, key=lambda leaf: root_paths[leaf] > 1):  # stable: keeps the order given
        steps = nx.single_source_shortest_path_length(upwards, name)
        end_key = {node: (steps[node], -depth[node]) for node in depth if node in steps}
        best = min(end_key.values())
        ends = [node for node, key in end_key.items() if key == best]
        path = min(path for end in ends for path in nx.all_shortest_paths(upwards, name, end))
        for child, parent in reversed(list(itertools.pairwise(path))):
            parents[child] = parent
            depth[child] = depth[parent] + 1
    return Taxonomy(parents)


def coco_taxonomy() -> Taxonomy:
    """The tree of COCO's 80 classes in WordNet 3.0, pruned by `prune_to_tree`.

    The classes have COCO's names, the other nodes WordNet's ("vehicle.n.01"). Two classes are inner nodes, because in
    WordNet a donut is a cake and a hot dog is a sandwich. `tables/make_coco_tree.py` makes the table from WordNet.

    >>> tree = coco_taxonomy()
    >>> tree.lowest_common_subsumer("cat", "dog"), tree.parents["hot dog"]
    ('carnivore.n.01', 'sandwich')
    """
    with resources.as_file(resources.files("wsolnb.data") / "tables" / "coco_tree.tsv") as path:
        return Taxonomy.from_file(path)


def voc_taxonomy() -> Taxonomy:
    """`coco_taxonomy` with VOC's names for VOC's twenty classes, which COCO has too.

    >>> "tvmonitor" in voc_taxonomy()
    True
    """
    return coco_taxonomy().renamed(VOC_NAMES)


def _ordered(graph: nx.DiGraph) -> list[str]:
    """Nodes from the root downwards; refuses a cycle."""
    try:
        return list(nx.topological_sort(graph))
    except nx.NetworkXUnfeasible:
        cycle = [parent for parent, _ in nx.find_cycle(graph)]
        raise ValueError(f"the class graph has a cycle: {' -> '.join([*cycle, cycle[0]])}") from None


def _single_root(graph: nx.DiGraph) -> str:
    roots = [node for node, degree in graph.in_degree() if degree == 0]
    if len(roots) > 1:
        raise ValueError(f"a class tree has one root, but {len(roots)} nodes have no parent: {roots[:5]}")
    return roots[0]
