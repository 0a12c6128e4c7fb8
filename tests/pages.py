"""The pages of the documentation as tests read them: their blocks, their headings, and where their links lead."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("**/*.md")])
FENCED = re.compile(r"^[ ]*```(\w*)\n(.*?)^[ ]*```$", re.DOTALL | re.MULTILINE)


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return [body for name, body in FENCED.findall(text) if name == language]


def prose(text: str) -> str:
    """Return a page without its fenced blocks."""
    return FENCED.sub("", text)


def sections(text: str, level: int) -> dict[str, str]:
    """Return the text under each heading of a level, up to the next heading of this or a higher level."""
    found = {}
    for part in re.split(rf"^(?=#{{1,{level}}} )", prose(text), flags=re.MULTILINE):
        marks, _, rest = part.partition(" ")
        if len(marks) == level:
            heading, _, body = rest.partition("\n")
            found[heading.strip()] = body
    return found


def anchor(heading: str) -> str:
    """Return the anchor that GitHub and the built site give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@cache
def anchors(page: Path) -> frozenset[str]:
    """Return the anchors of all headings of a page."""
    return frozenset(anchor(heading) for heading in re.findall(r"^#+ (.+)$", prose(page.read_text()), re.MULTILINE))


def links(text: str) -> list[str]:
    """Return where the links and pictures of a page lead, leaving out what is in blocks and in code."""
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(text)))
