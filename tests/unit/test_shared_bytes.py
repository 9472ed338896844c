"""What callers can make the server hold is bounded in all, and nobody takes what others need."""

from fumehood.shared_bytes import Held, SharedBytes


def _take_all(shared: SharedBytes, holder: str) -> int:
    while shared.take(holder, 1):
        pass
    return shared.held_by(holder)


def test_one_alone_has_two_thirds_and_who_comes_later_a_third_of_what_the_one_before_had() -> None:
    shared = SharedBytes(2700)
    assert [_take_all(shared, name) for name in ("first", "second", "third")] == [1800, 600, 200]
    assert shared.held == 2600


def test_what_is_refused_is_not_counted() -> None:
    shared = SharedBytes(30)
    assert shared.take("one", 20)
    assert not shared.take("one", 1)
    assert not shared.take("other", 11)
    assert (shared.held, shared.held_by("one"), shared.held_by("other")) == (20, 20, 0)


def test_what_was_given_back_can_be_taken_again() -> None:
    shared = SharedBytes(30)
    assert shared.take("one", 20)
    shared.give_back("one", 20)
    assert shared.held == 0
    assert shared.take("other", 20)


def test_bytes_are_held_for_as_long_as_what_they_are_counted_for() -> None:
    shared = SharedBytes(30)
    assert shared.take("one", 20)
    held = [Held(shared, "one", 20)]
    assert shared.held_by("one") == 20
    held.clear()
    assert shared.held_by("one") == 0
