"""The client for browsers as its service serves it: one file of many modules, and what only some pages load.

One file, because a page that is loaded while the service is replaced must not get some modules of one version and some
of another. What is loaded later (`import("./tabs.js")`) has that version in its URL: a service that has another refuses
it, and the client does without.
"""

import re
from hashlib import sha256
from pathlib import Path

# Our modules import by name, and export what they declare where they declare it.
_IMPORT = re.compile(r'^import \{\s*(?:\w+,\s*)*\w+,?\s*\} from "(\./[\w/]+\.js)";\n', re.MULTILINE)
_REEXPORT = re.compile(r'^(export \{[^}]*\}) from "(\./[\w/]+\.js)";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|class|const)\b)", re.MULTILINE)
_LATER = re.compile(r'\bimport\("\./tabs\.js"\)')
_DECLARED = re.compile(r"^(?:export )?(?:async )?(?:function|class|const|let) (\w+)", re.MULTILINE)

# A client that the service serves knows where the service is; one in a bundle must be told.
_ADDRESS = ("const HOME = undefined;", "const HOME = import.meta.url;")


class Client:
    """The client, of the modules in `static`: `main`, `tabs`, and the `version` that they have together.

    ValueError where the modules are not written so that they can be put into one.
    """

    def __init__(self, static: Path) -> None:
        main, tabs = joined(static / "client.js"), joined(static / "client" / "tabs.js")
        self.version = sha256((main + tabs).encode()).hexdigest()[:16]
        main, homes = main.replace(*_ADDRESS), main.count(_ADDRESS[0])
        main, later = _LATER.subn(f'import("./client/tabs.js?v={self.version}")', main)
        if homes != 1 or not later:
            raise ValueError("client.js does not say where it came from, or what it loads later.")
        self.main = main.encode()
        self.tabs = tabs.encode()


def joined(entry: Path) -> str:
    """The module `entry` with all that it imports in it. What it exports, and no other module does, stays exported."""
    texts: dict[Path, str] = {}

    def add(module: Path) -> None:
        if module in texts:
            return
        texts[module] = ""  # its place comes after those that it needs
        text = module.read_text()
        for name in (*_IMPORT.findall(text), *(name for _, name in _REEXPORT.findall(text))):
            add((module.parent / name).resolve())
        del texts[module]
        text = _REEXPORT.sub(r"\1;", _IMPORT.sub("", text))
        texts[module] = text if module == entry else _EXPORT.sub("", text)

    entry = entry.resolve()
    add(entry)
    whole = "\n".join(texts.values())
    declared = _DECLARED.findall(whole)
    twice = sorted({name for name in declared if declared.count(name) > 1})
    if twice or re.search(r"^import\b", whole, re.MULTILINE):
        raise ValueError(f"{entry.name} cannot be one file: {', '.join(twice) or 'an import'} is in the way.")
    return whole
