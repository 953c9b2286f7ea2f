"""Class trees, pruning, and the shipped table of COCO's classes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, strategies as st

from wsolnb.data import taxonomy as module
from wsolnb.data.taxonomy import Taxonomy, coco_taxonomy, prune_to_tree, read_edges, voc_taxonomy

#        thing
#       /     \
#   animal    cup
#   /    \
#  cat   dog
#         \
#         pug
PARENTS = {"cat": "animal", "dog": "animal", "pug": "dog", "animal": "thing", "cup": "thing"}


def random_tree(draws: list[int]) -> Taxonomy:
    """Node k + 1 hangs on one of the nodes before it."""
    return Taxonomy({f"n{k + 1}": f"n{draw % (k + 1)}" for k, draw in enumerate(draws)})


trees = st.lists(st.integers(0, 10**6), min_size=1, max_size=40).map(random_tree)


def test_heights_root_and_leaves() -> None:
    tree = Taxonomy(PARENTS)
    assert tree.root == "thing"
    assert tree.heights == {"thing": 3, "animal": 2, "dog": 1, "cat": 0, "pug": 0, "cup": 0}
    assert tree.max_height == 3
    assert tree.leaves == ["cat", "pug", "cup"]
    assert len(tree) == 6
    assert "pug" in tree
    assert "cow" not in tree
    assert tree.path("pug") == ["thing", "animal", "dog", "pug"]


@pytest.mark.parametrize(
    ("a", "b", "subsumer"),
    [("cat", "pug", "animal"), ("dog", "pug", "dog"), ("pug", "cup", "thing"), ("cat", "cat", "cat")],
)
def test_lowest_common_subsumer(a: str, b: str, subsumer: str) -> None:
    tree = Taxonomy(PARENTS)
    assert tree.lowest_common_subsumer(a, b) == subsumer
    assert tree.lowest_common_subsumer(b, a) == subsumer


def test_similarity_by_hand_with_an_inner_node() -> None:
    similarity = Taxonomy(PARENTS).similarity(["pug", "dog", "cat", "cup"])
    expected = [[1, 2 / 3, 1 / 3, 0], [2 / 3, 1, 1 / 3, 0], [1 / 3, 1 / 3, 1, 0], [0, 0, 0, 1]]
    assert similarity.dtype == np.float64
    np.testing.assert_allclose(similarity, expected)


def test_max_height_is_of_the_whole_tree() -> None:
    deep = Taxonomy(PARENTS | {f"level{k}": f"level{k - 1}" for k in range(1, 9)} | {"level0": "thing"})
    assert deep.max_height == 9
    assert deep.similarity(["cat", "pug"])[0, 1] == pytest.approx(1 - 2 / 9)


@given(trees)
def test_similarity_agrees_with_networkx(tree: Taxonomy) -> None:
    graph = nx.DiGraph((p, c) for c, p in tree.parents.items())
    nodes = list(graph)
    height = {n: max(nx.single_source_shortest_path_length(graph, n).values()) for n in nodes}
    similarity = tree.similarity(nodes)
    for (a, b), lowest in nx.tree_all_pairs_lowest_common_ancestor(graph):
        value = 1.0 if a == b else 1 - height[lowest] / height[tree.root]
        assert similarity[nodes.index(a), nodes.index(b)] == pytest.approx(value)
    np.testing.assert_array_equal(similarity, similarity.T)


def test_flat_tree_knows_nothing() -> None:
    np.testing.assert_array_equal(Taxonomy.flat(["a", "b", "c"]).similarity(["a", "b", "c"]), np.eye(3))


def test_unknown_class_names_the_closest() -> None:
    with pytest.raises(ValueError, match=r"'dgo' has no node .*\['dog'\]"):
        Taxonomy(PARENTS).similarity(["cat", "dgo"])


def test_repeated_class_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\['cat'\] come several times"):
        Taxonomy(PARENTS).similarity(["cat", "cup", "cat"])


def test_several_parents_are_refused_with_their_names() -> None:
    with pytest.raises(ValueError, match=r"node 'dog' has the parents 'canine' and 'pet'.*prune_to_tree"):
        Taxonomy.from_edges([("canine", "dog"), ("thing", "canine"), ("pet", "dog"), ("thing", "pet")])


def test_cycle_is_refused_with_its_nodes() -> None:
    with pytest.raises(ValueError, match=r"cycle: (a -> b -> a|b -> a -> b)"):
        Taxonomy({"a": "b", "b": "a", "c": "b"})
    with pytest.raises(ValueError, match="cycle: a -> a"):
        Taxonomy({"a": "a"})


def test_several_roots_are_refused_with_their_names() -> None:
    with pytest.raises(ValueError, match=r"2 nodes have no parent: \['x', 'y'\]"):
        Taxonomy({"a": "x", "b": "y"})


def test_empty_tree_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one edge"):
        Taxonomy({})


def test_edge_file_with_tabs_between(tmp_path: Path) -> None:
    (tmp_path / "tree.tsv").write_text("# two lines\n# of notice\nfood\thot dog\nthing\tcup\nthing\tfood\n")
    parents = {"hot dog": "food", "cup": "thing", "food": "thing"}
    assert Taxonomy.from_file(tmp_path / "tree.tsv").parents == parents


def test_edge_file_with_blanks_between(tmp_path: Path) -> None:
    path = tmp_path / "cards.txt"
    path.write_text("# cards\nface jack\n\n face   queen\ncard face\ncard nine\n")
    assert read_edges(path) == [("face", "jack"), ("face", "queen"), ("card", "face"), ("card", "nine")]
    assert Taxonomy.from_file(path).max_height == 2


@pytest.mark.parametrize("line", ["face", "face jack queen", "face\tjack\tqueen", "\tjack"])
def test_bad_edge_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "cards.txt"
    path.write_text(f"card face\n{line}\n")
    with pytest.raises(ValueError, match=r"cards\.txt, line 2: expected"):
        read_edges(path)


def test_missing_edge_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.txt"):
        Taxonomy.from_file(tmp_path / "nowhere.txt")


def test_file_that_is_no_tree_is_named(tmp_path: Path) -> None:
    path = tmp_path / "graph.txt"
    path.write_text("a c\nb c\nr a\nr b\n")
    with pytest.raises(ValueError, match=r"graph\.txt: .*node 'c' has the parents 'a' and 'b'"):
        Taxonomy.from_file(path)


def test_pruning_starts_with_single_paths_then_adds_fewest_nodes() -> None:
    edges = [
        ("root", "tool"),
        ("tool", "cutter"),
        ("cutter", "saw"),  # saw has one path: it comes first although named last
        ("root", "toy"),
        ("toy", "puzzle"),
        ("puzzle", "jigsaw"),  # adds toy, puzzle, jigsaw ...
        ("cutter", "jigsaw"),  # ... or only jigsaw
        ("root", "unused"),
    ]
    tree = prune_to_tree(edges, ["jigsaw", "saw"])
    assert tree.parents == {"tool": "root", "cutter": "tool", "saw": "cutter", "jigsaw": "cutter"}


def test_pruning_goes_in_the_order_given() -> None:
    # Both classes have two paths; whichever comes first lays the path that the second one then shares.
    edges = [("root", "a"), ("root", "b"), ("a", "x"), ("b", "x"), ("a", "y"), ("b", "y"), ("b", "only")]
    assert prune_to_tree(edges, ["x", "y", "only"]).parents == {"b": "root", "only": "b", "x": "b", "y": "b"}
    assert prune_to_tree(edges, ["x", "y"]).parents == {"a": "root", "x": "a", "y": "a"}


def test_pruning_breaks_ties_far_from_the_root() -> None:
    edges = [("root", "a"), ("root", "z"), ("z", "deep"), ("a", "one"), ("deep", "two"), ("a", "x"), ("deep", "x")]
    assert prune_to_tree(edges, ["one", "two", "x"]).parents["x"] == "deep"


def test_pruning_keeps_an_inner_class() -> None:
    tree = prune_to_tree([("food", "cake"), ("cake", "donut"), ("food", "donut")], ["cake", "donut"])
    assert tree.parents == {"cake": "food", "donut": "cake"} or tree.parents == {"cake": "food", "donut": "food"}
    assert set(tree.similarity(["cake", "donut"]).diagonal()) == {1.0}


@given(st.lists(st.sets(st.integers(0, 10**6), min_size=1, max_size=3), min_size=2, max_size=25), st.data())
def test_pruned_graph_is_a_tree_of_graph_edges(draws: list[set[int]], data: st.DataObject) -> None:
    edges = {(f"n{d % (k + 1)}", f"n{k + 1}") for k, draw in enumerate(draws) for d in draw}
    leaves = data.draw(st.lists(st.sampled_from(sorted({c for _, c in edges})), min_size=1, unique=True))
    tree = prune_to_tree(sorted(edges), leaves)
    assert {(parent, child) for child, parent in tree.parents.items()} <= edges
    assert tree.root == "n0"
    assert set(tree.leaves) <= set(leaves)
    assert all(leaf in tree for leaf in leaves)


def test_pruning_names_what_is_missing() -> None:
    with pytest.raises(ValueError, match=r"no node for \['cow'\]"):
        prune_to_tree([("thing", "cat")], ["cat", "cow"])
    with pytest.raises(ValueError, match="got none"):
        prune_to_tree([("thing", "cat")], [])
    with pytest.raises(ValueError, match="2 nodes have no parent"):
        prune_to_tree([("thing", "cat"), ("idea", "cow")], ["cat", "cow"])
    with pytest.raises(ValueError, match="cycle"):
        prune_to_tree([("thing", "cat"), ("cat", "thing")], ["cat"])


def test_shipped_tree_has_all_classes() -> None:
    tree = coco_taxonomy()
    classes = [node for node in tree.heights if ".n." not in node]
    assert len(classes) == 80
    assert len(tree) == 212
    assert tree.max_height == 16
    assert tree.root == "entity.n.01"
    # WordNet has a hot dog for a sandwich and a donut for a cake: two classes are inner nodes.
    assert set(classes) - set(tree.leaves) == {"sandwich", "cake"}
    assert set(tree.leaves) < set(classes)


@pytest.mark.parametrize(
    ("name", "above"),
    [
        ("mouse", "electronic_device.n.01"),
        ("orange", "citrus.n.01"),
        ("remote", "device.n.01"),
        ("tie", "neckwear.n.01"),
        ("kite", "plaything.n.01"),
        ("baseball bat", "sports_equipment.n.01"),
        ("cell phone", "telephone.n.01"),
        ("tv", "electronic_equipment.n.01"),
        ("potted plant", "plant.n.02"),
        ("dining table", "furniture.n.01"),
        ("hot dog", "sandwich"),
        ("couch", "seat.n.03"),
        ("bird", "vertebrate.n.01"),
        ("dog", "canine.n.02"),
        ("skateboard", "wheeled_vehicle.n.01"),
        ("spoon", "cutlery.n.02"),
        ("keyboard", "device.n.01"),
        ("scissors", "edge_tool.n.01"),
        ("book", "artifact.n.01"),
        ("clock", "timepiece.n.01"),
    ],
)
def test_every_name_means_the_thing_in_the_photo(name: str, above: str) -> None:
    assert above in coco_taxonomy().path(name)


def test_similar_things_are_similar() -> None:
    tree = coco_taxonomy()
    s = tree.similarity(["car", "truck", "train", "banana", "person"])
    assert s[0, 1] > s[0, 2] > s[0, 3]
    assert np.linalg.eigvalsh(tree.similarity(tree.leaves)).min() >= 1 / tree.max_height - 1e-12


def test_voc_names_sit_in_cocos_tree() -> None:
    voc = [
        "aeroplane",
        "bicycle",
        "bird",
        "boat",
        "bottle",
        "bus",
        "car",
        "cat",
        "chair",
        "cow",
        "diningtable",
        "dog",
        "horse",
        "motorbike",
        "person",
        "pottedplant",
        "sheep",
        "sofa",
        "train",
        "tvmonitor",
    ]
    assert voc_taxonomy().similarity(voc).shape == (20, 20)
    assert set(module.VOC_NAMES) <= set(coco_taxonomy().leaves)


def test_shipped_table_is_rebuilt_from_wordnet(shared_data: Path, repo: Path) -> None:
    tables = repo / "wsolnb" / "data" / "tables"
    command = [sys.executable, tables / "make_coco_tree.py", shared_data / "taxonomy" / "wordnet.parent-child.txt"]
    made = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(repo)}
    )
    assert made.stdout == (tables / "coco_tree.tsv").read_text(encoding="utf-8")


def test_pruned_imagenet_is_as_large_as_the_published_tree(shared_data: Path) -> None:
    # cvjena/semantic-embeddings publishes the pruned tree of ILSVRC's 1000 classes: 1,784 edges.
    from timm.data import ImageNetInfo

    classes = ImageNetInfo().label_names()
    tree = prune_to_tree(read_edges(shared_data / "taxonomy" / "wordnet.parent-child.txt"), classes)
    assert len(tree.parents) == 1784
    assert tree.similarity(classes).shape == (1000, 1000)


def test_real_bird_tree(shared_data: Path) -> None:
    tree = Taxonomy.from_file(shared_data / "taxonomy" / "cub_balanced.parent-child.txt")
    assert len(tree.leaves) == 200
