"""Keys: how they are made, and what they may be named and may do."""

import re
import secrets
from collections import Counter
from hashlib import sha256

import pytest

from notifier.core.errors import InvalidKey
from notifier.core.keys import Rights, check_name, check_rights, hash_of, id_in, make_key


def test_a_key_has_an_id_and_a_secret_of_190_bits():
    key_id, key = make_key(secrets.choice)
    assert re.fullmatch(r"[a-z0-9]{12}", key_id)
    assert re.fullmatch(rf"nk_{key_id}_[A-Za-z0-9]{{32}}", key, re.ASCII)
    assert hash_of(key) == sha256(key.encode()).digest()


def test_every_character_is_chosen_on_its_own():
    asked = Counter()

    def choose(alphabet):
        asked[alphabet] += 1
        return alphabet[sum(asked.values()) % len(alphabet)]

    _, key = make_key(choose)
    assert sorted((len(set(alphabet)), count) for alphabet, count in asked.items()) == [(36, 12), (62, 32)]
    assert len(set(key)) > 30


def test_the_id_is_found_in_a_whole_key_and_in_its_beginning():
    key_id, key = make_key(secrets.choice)
    assert id_in(key) == id_in(f"nk_{key_id}") == id_in(key_id) == key_id
    for other in ("", "nk_", key_id.upper(), key + "x", key[:-1], f"{key_id}\n", f"{key}\n", "github"):
        assert id_in(other) is None


@pytest.mark.parametrize("name", ["a", "CI server", "Überwachung", "x" * 100, "github-actions/main"])
def test_names(name):
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "x" * 101, " a", "a ", "a\nb", "a\x00", "a\x1b[2J", "\udcff", "\u202ex"])
def test_names_that_a_table_could_not_show_are_refused(name):
    with pytest.raises(InvalidKey, match="printable"):
        check_name(name)


@pytest.mark.parametrize("name", ["nk_abcdefghijkl", f"nk_abcdefghijkl_{'x' * 32}", "nk_"])
def test_a_name_is_no_key_and_no_id_of_one(name):
    with pytest.raises(InvalidKey, match="does not begin with nk_") as refused:
        check_name(name)
    assert name not in str(refused.value) or name == "nk_"


def test_rights_keep_each_pattern_once_and_in_order():
    rights = check_rights(["b/*", "a", "b/*"], ["**"], admin=False)
    assert rights == Rights(("b/*", "a"), ("**",), admin=False)
    assert check_rights([], [], admin=True) == Rights(admin=True)
    assert len(check_rights([f"a/{i}" for i in range(100)] * 2, [], admin=False).publish) == 100


@pytest.mark.parametrize(
    ("publish", "subscribe", "admin", "sentence"),
    [
        ([], [], False, "may do nothing"),
        (["a"], [], True, "may do everything"),
        (["a/**/b"], [], False, "is not a pattern"),
        ([], ["a b"], False, "is not a topic"),
        ([], [""], False, "cannot be empty"),
        ([], ["a,b"], False, "is not a topic"),
        ([f"a/{i}" for i in range(101)], [], False, "at most 100 patterns"),
        ([], [f"a/{i}" for i in range(101)], False, "at most 100 patterns"),
    ],
)
def test_rights_that_say_nothing_or_something_malformed_are_refused(publish, subscribe, admin, sentence):
    with pytest.raises(InvalidKey, match=sentence):
        check_rights(publish, subscribe, admin=admin)
