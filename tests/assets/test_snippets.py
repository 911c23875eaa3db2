"""The Python in the README and the documents runs as it stands, on a small survey."""

import re
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))
from small_survey import own, processed, snapshots, started

from seechange_core.settings import use_settings

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
__all__ = ["own", "processed", "snapshots", "started"]


def snippets():
    for file in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for n, found in enumerate(BLOCK.finditer(file.read_text(encoding="utf-8")), start=1):
            yield pytest.param(found[1], id=f"{file.name}-{n}")


@pytest.mark.parametrize("snippet", list(snippets()))
def test_it_runs(snippet, own, monkeypatch, capsys):
    monkeypatch.setenv("SEECHANGE_CONFIG", str(own.root / "seechange.yaml"))
    with use_settings(own.settings):
        exec(compile(snippet, "snippet", "exec"), {"__name__": "__main__"})
    said = capsys.readouterr().out
    if "materialize" in snippet:
        assert "demo/source_list" in said and "|0" in said
