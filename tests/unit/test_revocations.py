"""Which tokens are refused, within bounds, and rather too many than too few."""

from notifier.access.revocations import Revocations

DAY = 86400.0


def revocations(most: int = 100, now: float = 10 * DAY) -> tuple[Revocations, list[float]]:
    clock = [now]
    return Revocations(DAY, lambda: clock[0], most), clock


def test_what_was_issued_up_to_the_revocation_is_refused() -> None:
    revoked, clock = revocations()
    at = clock[0]
    revoked.add("anna", at)
    assert revoked.refused("anna", at)
    assert revoked.refused("anna", at - 1)
    assert revoked.refused("anna", None)
    assert not revoked.refused("anna", at + 1)
    assert not revoked.refused("berta", at - 1)
    assert not revoked.refused("berta", None)


def test_changes_may_come_twice_and_in_any_order() -> None:
    revoked, clock = revocations()
    at = clock[0]
    for when in (at, at - 5, at - 9):
        revoked.add("anna", when)
    assert revoked.refused("anna", at)
    assert len(revoked) == 1


def test_what_no_token_can_be_old_enough_for_is_forgotten_first() -> None:
    revoked, clock = revocations(most=4)
    for n in range(4):
        revoked.add(f"old {n}", clock[0] - 2 * DAY)
    revoked.add("anna", clock[0])
    assert len(revoked) == 1
    assert not revoked.refused("berta", clock[0] - 1)  # so nobody else is refused
    clock[0] += DAY + 1
    assert not revoked.refused("anna", None)


def test_when_it_is_full_everything_issued_before_what_it_forgets_is_refused() -> None:
    revoked, clock = revocations(most=10)
    at = clock[0]
    for n in range(11):
        revoked.add(f"user {n}", at + n)
    assert len(revoked) == 5
    for n in range(11):
        assert revoked.refused(f"user {n}", at + n)
    assert not revoked.refused("user 10", at + 11)
    # The newest that it has forgotten is number 5.
    assert revoked.refused("nobody", at + 5)
    assert revoked.refused("nobody", None)
    assert not revoked.refused("nobody", at + 6)
    clock[0] = at + 5 + DAY
    assert not revoked.refused("nobody", None)


def test_loading_anew_replaces_all() -> None:
    revoked, clock = revocations()
    at = clock[0]
    revoked.add("anna", at)
    revoked.clear(at - 10)
    assert not revoked.refused("anna", at)
    assert revoked.refused("anna", at - 10)
