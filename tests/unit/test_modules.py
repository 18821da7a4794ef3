"""The client for browsers, which is many modules, as the one file that is served."""

from pathlib import Path

import pytest
from conftest import ROOT

from notifier.web.modules import Client, joined


def written(folder: Path, **modules: str) -> Path:
    for name, text in modules.items():
        (folder / f"{name}.js").write_text(text)
    return folder / "entry.js"


def test_what_a_module_needs_comes_before_it_and_once_and_only_the_entry_exports(tmp_path: Path) -> None:
    entry = written(
        tmp_path,
        entry='import {\n  a,\n} from "./a.js";\n\nexport { B } from "./b.js";\nexport function c() {\n  a;\n}\n',
        a='import { B } from "./b.js";\n\nexport const a = new B();\n',
        b="export class B {}\n",
    )
    lines = [line for line in joined(entry).splitlines() if line]
    assert lines == ["class B {}", "const a = new B();", "export { B };", "export function c() {", "  a;", "}"]


@pytest.mark.parametrize(
    ("modules", "reason"),
    [
        ({"entry": 'import { a } from "./a.js";\nconst b = 1;\n', "a": "export const a = 1;\nlet b;\n"}, "b is"),
        ({"entry": 'import a from "./a.js";\n', "a": "export const a = 1;\n"}, "an import is"),
        ({"entry": 'import * as a from "./a.js";\n', "a": "export const a = 1;\n"}, "an import is"),
        ({"entry": 'import { a as b } from "./a.js";\n', "a": "export const a = 1;\n"}, "an import is"),
    ],
)
def test_modules_that_cannot_be_one_file_are_refused(tmp_path: Path, modules: dict[str, str], reason: str) -> None:
    entry = written(tmp_path, **modules)
    with pytest.raises(ValueError, match=rf"entry\.js cannot be one file: {reason} in the way"):
        joined(entry)


def test_the_version_of_the_client_is_that_of_all_of_it(tmp_path: Path) -> None:
    versions = set()
    for changed in ("", "client.js", "client/tabs.js", "client/requests.js"):
        for file in (ROOT / "static").glob("**/*.js"):
            name = file.relative_to(ROOT / "static")
            copy = tmp_path / name
            copy.parent.mkdir(exist_ok=True)
            copy.write_text(file.read_text() + ("// changed\n" if str(name) == changed else ""))
        client = Client(tmp_path)
        assert client.version.encode() in client.main
        versions.add(client.version)
    assert len(versions) == 4
