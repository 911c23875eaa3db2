"""The README points only to what is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def anchors(text: str) -> set[str]:
    """Return the anchors of headings as forges make them: lower case, words joined by hyphens."""
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in HEADING.findall(text)}


@pytest.mark.parametrize("link", sorted(set(LINK.findall((ROOT / "README.md").read_text()))))
def test_every_link_leads_somewhere(link):
    if link.startswith("#"):
        assert link[1:] in anchors((ROOT / "README.md").read_text())
    elif "://" not in link:
        file, _, anchor = link.partition("#")
        assert (ROOT / file).is_file()
        assert not anchor or anchor in anchors((ROOT / file).read_text())
