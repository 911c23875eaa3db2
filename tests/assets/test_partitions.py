"""Partition keys and the mappings between different sets."""

import dagster as dg
import pytest

from seechange_assets import partitions, references
from seechange_assets.chain import split
from seechange_assets.definitions import define


def test_keys_come_apart_again():
    assert split(partitions.key(exposure="demo_2025", section="S-3")) == ("demo_2025", "S-3")
    assert references.split(partitions.key(region="150.1+2.2", filter="r")) == ("150.1+2.2", "r")


@pytest.mark.parametrize(
    ("night", "band"), [("2025-01-01", "r"), ("2025-01-01", "i_prime"), ("2025-01-01", None)]
)
def test_a_flats_key_comes_apart_again(night, band):
    assert partitions.split_night_filter(partitions.night_filter(night, band)) == (night, band)


def test_registering_twice_adds_once():
    with dg.DagsterInstance.ephemeral() as instance:
        assert partitions.register(instance, "demo", "exposure", ["a", "b", "a"]) == ["a", "b"]
        assert partitions.register(instance, "demo", "exposure", ["b", "c"]) == ["c"]
        assert instance.get_dynamic_partitions("demo_exposures") == ["a", "b", "c"]


def parents(graph, instance, child, key, parent):
    """Keys of a parent that a child's partition depends on."""
    keys = (dg.AssetKey(["demo", name]) for name in (parent, child))
    parent_key, child_key = keys
    with dg._core.definitions.partitions.context.partition_loading_context(dynamic_partitions_store=instance):
        found = graph.get_parent_partition_keys_for_child(key, parent_key, child_key)
    return sorted(found.partitions_subset.get_partition_keys())


@pytest.mark.parametrize(
    ("child", "key", "parent", "expected"),
    [
        ("image", "e1|2", "exposure", ["e1|2"]),
        ("image", "e1|2", "bias", ["n1|2", "n2|2"]),
        ("image", "e1|2", "flat", ["n1_r|2"]),
        ("flat", "n1_r|2", "dark", ["n1|2", "n2|2"]),
        ("dark", "n1|2", "bias", ["n1|2"]),
        # Which are used is chosen by a query: to list all keys there are would take seconds at each run.
        ("subtraction", "e1|2", "reference", []),
        ("reference", "r|p1", "image", []),
    ],
)
def test_every_edge_between_sets_maps_to_keys_that_exist(settings, child, key, parent, expected):
    graph = define(settings).get_repository_def().asset_graph
    with dg.DagsterInstance.ephemeral() as instance:
        sets = {"exposure": ["e1"], "night": ["n1", "n2"], "night_filter": ["n1_r"], "region": ["p1", "p2"]}
        for dimension, names in {**sets, "filter": ["r"]}.items():
            partitions.register(instance, "demo", dimension, names)
        assert parents(graph, instance, child, key, parent) == expected


def test_no_edge_is_left_to_dagsters_identity(settings):
    graph = define(settings).get_repository_def().asset_graph
    for node in graph.asset_nodes:
        for parent in node.parent_keys:
            if graph.get(parent).partitions_def != node.partitions_def:
                assert node.partition_mappings.get(parent) is not None, (node.key, parent)
