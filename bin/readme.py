"""Run by the build: the README as a package index shows it.

An index has no files beside the README, so relative links would lead nowhere there. With a `Source` in `[project.urls]`
they lead to this version's files at that address; as long as there is none, their text stays and the links go.
"""

import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

# [text](target) and ![text](target); the text of a link may span lines.
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
# What a reader does not see, because code blocks and spans hold no links.
_CODE = re.compile(r"(^```.*?^```$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)


class Readme(MetadataHookInterface):
    """Gives the project its `readme`."""

    def update(self, metadata: dict) -> None:
        """Called by hatchling with the `[project]` table."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        source = metadata.get("urls", {}).get("Source")
        base = f"{source.rstrip('/')}/blob/v{metadata['version']}" if source else None
        metadata["readme"] = {"content-type": "text/markdown", "text": absolute(text, base)}


def absolute(text: str, base: str | None) -> str:
    """`text` without relative links: they begin with `base`, or, where that is None, only their text is left."""

    def link(found: re.Match[str]) -> str:
        picture, words, target = found.groups()
        if re.match(r"[a-z]+:", target):
            return found[0]
        if base is None:
            return "" if picture else words
        if target.startswith("#"):
            target = f"README.md{target}"  # indexes give headings no names
        return f"{picture}[{words}]({base}/{target}{'?raw=true' if picture else ''})"

    # Every second part is code.
    parts = _CODE.split(text)
    parts[::2] = [_LINK.sub(link, part) for part in parts[::2]]
    return "".join(parts)
