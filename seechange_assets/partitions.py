"""What the assets are partitioned by, and how one partitioning maps to another.

Exposures, nights and sky regions come as the survey goes on: they are dynamic sets that belong to the
instance, one of each per instrument. Sections are the instrument's own and fixed. Dagster knows at
most two dimensions, in the alphabetical order of their names, so a flat's night and filter share one.
Edges between different sets always state their mapping: Dagster's silent default is the identity.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import dagster as dg

#: Tags that make a run one over a range of partitions.
RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Dagster's word that a construct may change: its version is pinned, and tests would tell."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        warnings.simplefilter("ignore", dg.PreviewWarning)
        yield


def set_name(instrument: str, dimension: str) -> str:
    """Name the instance's set of keys of a dynamic dimension."""
    return f"{instrument}_{dimension}s"


def by_section(instrument: str, dimension: str, sections: Sequence[str]) -> dg.MultiPartitionsDefinition:
    """Partition by a dynamic dimension and the instrument's sections."""
    return dg.MultiPartitionsDefinition(
        {
            dimension: dg.DynamicPartitionsDefinition(name=set_name(instrument, dimension)),
            "section": dg.StaticPartitionsDefinition(list(sections)),
        }
    )


def by_night(instrument: str, dimension: str) -> dg.DynamicPartitionsDefinition:
    """Partition by nights alone."""
    return dg.DynamicPartitionsDefinition(name=set_name(instrument, dimension))


def by_region(instrument: str) -> dg.MultiPartitionsDefinition:
    """Partition by sky region and filter."""
    return dg.MultiPartitionsDefinition(
        {
            name: dg.DynamicPartitionsDefinition(name=set_name(instrument, name))
            for name in ("filter", "region")
        }
    )


def key(**dimensions: str) -> dg.MultiPartitionKey:
    """Make the key of one partition, e.g. ``key(exposure=..., section=...)``."""
    return dg.MultiPartitionKey(dimensions)


def same_section() -> dg.PartitionMapping:
    """Map to the same section of every night: which night serves an exposure is chosen by a query."""
    with quiet():
        return dg.MultiPartitionMapping(
            {"section": dg.DimensionPartitionMapping("section", dg.IdentityPartitionMapping())}
        )


def by_query() -> dg.PartitionMapping:
    """Map to no partition that could be named beforehand: which ones are used is chosen by a query.

    To map to all of them would be as true, and have Dagster list every key there is at each run.
    """
    return dg.SpecificPartitionsPartitionMapping([])


def night_filter(night: str, band: str | None) -> str:
    """Join a flat's night and filter to one key."""
    return f"{night}_{band}" if band else night


def split_night_filter(joined: str) -> tuple[str, str | None]:
    """Take a flat's key apart again; nights are ``YYYY-MM-DD``."""
    night, _, band = joined.partition("_")
    return night, band or None


def register(instance: dg.DagsterInstance, instrument: str, dimension: str, keys: Iterable[str]) -> list[str]:
    """Add the keys that a dynamic set does not have yet, and return those."""
    name = set_name(instrument, dimension)
    known = set(instance.get_dynamic_partitions(name))
    new = [item for item in dict.fromkeys(keys) if item not in known]
    if new:
        instance.add_dynamic_partitions(name, new)
    return new
