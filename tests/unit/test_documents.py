"""What the documents and the configuration of the tools name is there."""

import re
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT

from notifier import __version__
from notifier.core.grants import Grant

DOCUMENTS = [path for folder in (".", "docs", "bench", "bench/peers") for path in sorted((ROOT / folder).glob("*.md"))]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_that_exist(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text()):
        assert target.startswith("http") or (path.parent / target).exists(), target


@pytest.mark.parametrize(
    "name", ["CONTRIBUTING.md", "README.md", ".ci/run", ".github/workflows/ci.yml", ".pre-commit-config.yaml"]
)
def test_make_has_every_target_that_is_called(name: str) -> None:
    called = set(re.findall(r"(?:^|`|: )make ([a-z-]+)", (ROOT / name).read_text(), re.MULTILINE))
    assert called
    assert called <= TARGETS


def test_ci_calls_what_has_to_hold_before_a_change_lands() -> None:
    runs = re.findall(r"- run: (.*)", (ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert {"make lint PYTHONS=python", "make test PYTHONS=python", ".ci/run"} <= set(runs)


def test_the_architecture_names_every_module() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    named = set(re.findall(r"`([\w./]+)`", text[text.index("## Where to find") : text.index("## Invariants")]))
    folders = {"cli", "client", "embedded", "workers"}  # named as a whole
    modules = [
        path.relative_to(ROOT)
        for path in sorted((ROOT / "notifier").rglob("*.py"))
        if not path.stem.startswith("__") and path.parent.name not in folders
    ]
    assert [str(path) for path in modules if not named & {path.stem, str(path)}] == []


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["version"] == __version__


# Code on these pages is that of files which tests run, or says that it is not. Commands and settings are prose, unless
# they say which file they are from.
QUOTED = re.compile(
    r"(?:^<!-- (?P<note>[^\n]*?) -->\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
CODE = {"python", "js", "html", "ruby"}


@pytest.mark.parametrize("name", ["access.md", "django.md", "examples.md", "recipes.md"])
def test_a_page_shows_exactly_what_the_files_have(name: str) -> None:
    quoted = list(QUOTED.finditer((ROOT / "docs" / name).read_text()))
    assert quoted
    for block in quoted:
        note = block["note"] or ""
        if note.startswith("from ") or (block["kind"] in CODE and note != "not run"):
            assert note.startswith("from "), block["text"]
            assert f"\n{block['text']}" in "\n" + (ROOT / "docs" / note.removeprefix("from ")).read_text(), block[
                "text"
            ]


@pytest.mark.rule("A-2")
def test_what_a_pattern_covers_is_as_the_page_says() -> None:
    page = (ROOT / "docs" / "access.md").read_text()
    rows = re.findall(r"^\| (`.*?`) \| `(.*?)` \| (yes|no)\b.*\|$", page, re.MULTILINE)
    assert len(rows) == 10
    for patterns, items, allowed in rows:
        grant = Grant("somebody", subscribe=re.findall(r"`(.*?)`", patterns))
        refused = grant.may_not_subscribe(items.split(","))
        assert (refused is None) == (allowed == "yes"), (patterns, items)


def test_the_recipes_share_their_versions_with_notifier_and_name_no_registry() -> None:
    ours, theirs = (
        dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / path).read_text(), re.MULTILINE))
        for path in ("requirements.txt", "tests/recipes/requirements.txt")
    )
    common = ours.keys() & theirs.keys()
    assert {"asyncpg", "pyjwt"} <= common
    assert {name: ours[name] for name in common} == {name: theirs[name] for name in common}
    for lock in ("tests/recipes/requirements.txt", "docs/recipes/express/package-lock.json"):
        assert "://" not in (ROOT / lock).read_text()
