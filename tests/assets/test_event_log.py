"""The kept event log: the same tables as Dagster's own, without a new engine for every event."""

import dagster as dg
import sqlalchemy as sa
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage

from seechange_assets import event_log
from seechange_assets.home import open_instance


def log(instance, count):
    for number in range(count):
        instance.report_runless_asset_event(dg.AssetMaterialization("a", partition=str(number)))


def test_engines_are_kept(settings, monkeypatch):
    made = []
    create = sa.create_engine
    monkeypatch.setattr(event_log.sa, "create_engine", lambda *a, **k: made.append(a) or create(*a, **k))
    with open_instance(settings) as instance:
        log(instance, 20)
    assert len(made) <= 2


def test_the_oldest_engines_are_let_go(settings):
    with open_instance(settings) as instance:
        storage = instance.event_log_storage
        for number in range(event_log.KEPT_SHARDS + 5):
            with storage.run_connection(f"run{number}"):
                pass
        assert len(storage._engines) == event_log.KEPT_SHARDS


def test_dagsters_own_storage_reads_what_ours_wrote(settings):
    with open_instance(settings) as instance:
        assert isinstance(instance.event_log_storage, event_log.KeptSqliteEventLog)
        log(instance, 3)
    theirs = SqliteEventLogStorage(str(settings.data_root / "dagster" / "events"))
    assert theirs.get_materialized_partitions(dg.AssetKey("a")) == {"0", "1", "2"}


def test_another_process_can_rebuild_it(settings):
    with open_instance(settings) as instance:
        log(instance, 2)
        again = dg.DagsterInstance.from_ref(instance.get_ref())
        assert isinstance(again.event_log_storage, event_log.KeptSqliteEventLog)
        assert again.get_materialized_partitions(dg.AssetKey("a")) == {"0", "1"}
        again.dispose()
