"""Hook of ``mkdocs.yml``: README, CONTRIBUTING and CHANGELOG are pages too, and links fit the site."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}  # fmt: skip


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie above ``docs/``."""
    for name, page in PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Point links at the site's pages; one to a file that is no page becomes its text."""
    for name, page in PAGES.items():
        markdown = re.sub(rf"\]\((?:\.\./)?{name}", f"]({page}", markdown)
    return re.sub(
        r"\[([^]]+)\]\((?:\.\./|tools/|options/|lifeiqa_plugin/|CITATION)[^)]*\)", r"\1", markdown
    )
