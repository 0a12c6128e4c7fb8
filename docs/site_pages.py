"""A hook of MkDocs: lets the built site have the pages that lie outside of docs/, under the links that GitHub follows.

A page is written once, with relative links between files of the repository. On the site docs/ is the root, README.md is
the home page, and what is linked to elsewhere (SECURITY.md, benchmarks/results, the rules of Prometheus) lies under its
own path. So every relative link is taken as one between files of the repository, and written as one between pages.
Lists are indented as MkDocs reads them.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
HOME = "README.md"
LINK = re.compile(r"(\]\()([^)#\s]+)(#[^)\s]*)?(\))")
LIST_ITEM = re.compile(r"(?:-|\d+\.) ")
CODE = re.compile(r"^[ ]*```.*?^[ ]*```$|`[^`\n]*`", re.DOTALL | re.MULTILINE)


def site_path(path: str) -> str:
    """Return where a file of the repository lies below the site's root."""
    return "index.md" if path == HOME else path.removeprefix("docs/")


def repository_path(path: str) -> str:
    """Return which file of the repository a page of the site is."""
    if path == "index.md":
        return HOME
    return f"docs/{path}" if (ROOT / "docs" / path).exists() else path


def linked_outside() -> set[str]:
    """Return the files outside of docs/ that some page links to, and those that these link to; folders are left out."""
    waiting, found = {HOME, *(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/**/*.md"))}, set[str]()
    while waiting:
        page = waiting.pop()
        found.add(page)
        targets = {target for target in _targets(page) if (ROOT / target).is_file()} - found
        found |= {target for target in targets if not target.endswith(".md")}
        waiting |= {target for target in targets if target.endswith(".md")}
    return {path for path in found if not path.startswith("docs/")}


def _targets(page: str) -> Iterator[str]:
    for _, target, _, _ in LINK.findall(CODE.sub("", (ROOT / page).read_text())):
        if "://" not in target:
            yield posixpath.normpath(posixpath.join(posixpath.dirname(page), target))


def rewrite(markdown: str, page: str) -> str:
    """Return a page's text with each relative link as the site has it; one to a folder leads to its first page.

    Args:
        page: path of the page's file in the repository.
    """
    here = posixpath.dirname(site_path(page))

    def link(matched: re.Match[str]) -> str:
        opening, target, heading, closing = matched.groups()
        if "://" in target:
            return matched[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
        if (ROOT / path).is_dir():
            path = pages_of(path)[0]
        return f"{opening}{posixpath.relpath(site_path(path), here or '.')}{heading or ''}{closing}"

    parts, end = [], 0
    for code in CODE.finditer(markdown):
        parts += [LINK.sub(link, markdown[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, LINK.sub(link, markdown[end:])])


def indent_lists(markdown: str) -> str:
    """Return a page's text with what belongs to list items indented by four columns, which Python-Markdown asks for.

    GitHub is content with the two or three columns that stand under the item's text.
    """
    lines, missing, in_block = [], 0, False
    for line in markdown.split("\n"):
        if not line.startswith(" "):
            in_block ^= line.startswith("```")
            if line:
                item = None if in_block else LIST_ITEM.match(line)
                missing = 4 - len(item[0]) if item else 0
        lines.append(f"{' ' * missing}{line}" if missing and line.startswith(" ") else line)
    return "\n".join(lines)


def pages_of(folder: str) -> list[str]:
    """Return the pages of a folder of the repository that are on the site, by name."""
    pages = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / folder).glob("*.md"))
    return [page for page in pages if page.startswith("docs/") or page in linked_outside()]


def on_config(config: Any) -> Any:
    """Put the pages of a folder in the place of its name in the navigation, so that each new decision is there."""
    for section in config.nav:
        for title, entry in section.items():
            if isinstance(entry, str) and entry.endswith("/"):
                section[title] = [site_path(page) for page in pages_of(entry)]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add what lies outside of docs/."""
    from mkdocs.structure.files import File

    for path in sorted(linked_outside()):
        files.append(File.generated(config, site_path(path), abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Write a page's links and lists as the site wants them."""
    return indent_lists(rewrite(markdown, repository_path(page.file.src_uri)))
