"""The rules of docs/protocol.md and the tests that cite them."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from conftest import ROOT

from notifier.core import errors

RULE = re.compile(r"^- \*\*([A-Z]-[1-9][0-9]*)\*\* ", re.MULTILINE)


def rules() -> list[str]:
    return RULE.findall((ROOT / "docs" / "protocol.md").read_text())


def citations(path: Path) -> Iterator[str]:
    """The rules that the tests of one file cite. A citation anywhere but on a test proves nothing and is an error."""
    tree = ast.parse(path.read_text())
    on_tests = {
        mark
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
        for decorator in node.decorator_list
        for mark in ast.walk(decorator)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.rule":
            assert node in on_tests, f"{path}:{node.lineno} cites a rule outside of a test"
            assert node.args, f"{path}:{node.lineno} cites nothing"
            yield from (ast.literal_eval(rule) for rule in node.args)


@cache
def cited() -> set[str]:
    return {rule for path in sorted((ROOT / "tests").rglob("test_*.py")) for rule in citations(path)}


def test_every_rule_has_an_id_of_its_own() -> None:
    assert len(rules()) > 80
    assert [rule for rule, count in Counter(rules()).items() if count > 1] == []


def test_every_rule_is_cited_by_a_test() -> None:
    assert sorted(set(rules()) - cited()) == []


def test_every_citation_names_a_rule() -> None:
    assert sorted(cited() - set(rules())) == []


@pytest.mark.rule("E-2")
def test_the_codes_are_those_of_the_errors() -> None:
    [rule] = re.findall(
        r"^- \*\*E-2\*\* (.*?)^- ", (ROOT / "docs" / "protocol.md").read_text(), re.MULTILINE | re.DOTALL
    )
    documented = {
        (code, int(status))
        for codes, status in re.findall(r"((?:`\w+`,?\s+)+)\((\d+)\)", rule)
        for code in re.findall(r"\w+", codes)
    }
    kinds = subclasses(errors.NotifierError)
    kinds -= {errors.InvalidSource, errors.InvalidKey}  # of the command line
    of_the_web = {("method_not_allowed", 405), ("internal", 500)}
    assert documented == {(kind.code, kind.status) for kind in kinds} | of_the_web


def subclasses(of: type[errors.NotifierError]) -> set[type[errors.NotifierError]]:
    return {kind for direct in of.__subclasses__() for kind in (direct, *subclasses(direct))}


def test_a_citation_is_found_only_on_a_test(tmp_path: Path) -> None:
    path = tmp_path / "test_x.py"
    path.write_text("@pytest.mark.rule('A-1', 'A-2')\nasync def test_a(): ...\n")
    assert list(citations(path)) == ["A-1", "A-2"]
    path.write_text("@pytest.mark.rule('A-1')\ndef helper(): ...\n")
    with pytest.raises(AssertionError, match="outside of a test"):
        list(citations(path))
