"""Places are shared out by turns."""

from hypothesis import given
from hypothesis import strategies as st

from service.webhooks.places import Places


def taken(places: Places, *waiting: str) -> dict[str, int]:
    """Share out what is free, and take it."""
    shares = places.share(waiting)
    for owner, count in shares.items():
        for _ in range(count):
            places.take(owner)
    return shares


def test_one_owner_has_no_more_than_their_share() -> None:
    places = Places(64, 16)
    assert taken(places, "ada") == {"ada": 16}
    assert taken(places, "ada") == {}
    assert taken(places, "ada", "ben") == {"ben": 16}


def test_nobody_takes_so_many_that_fewer_are_left() -> None:
    """16, 16, and then half of what is left to each: 32 → 16 → 8 → 4 → …"""
    places = Places(64, 16)
    shares = [taken(places, owner)[owner] for owner in "abcdefg"]
    assert shares == [16, 16, 16, 8, 4, 2, 1]
    assert places.free == 1


def test_owners_who_wait_together_get_as_much_each() -> None:
    assert taken(Places(64, 16), "a", "b", "c", "d", "e") == {"a": 11, "b": 11, "c": 11, "d": 11, "e": 10}


def test_who_was_served_longest_ago_is_next() -> None:
    places = Places(1, 1)
    order = []
    for _ in range(6):
        ((owner, _),) = taken(places, "ada", "ben", "cai").items()
        order.append(owner)
        places.give_back(owner)
    assert order == ["ada", "ben", "cai"] * 2


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.booleans()), max_size=200))
def test_whatever_comes_no_limit_is_broken_and_who_has_none_gets_one(steps: list[tuple[str, bool]]) -> None:
    places, held = Places(8, 3), dict.fromkeys("abcdefgh", 0)
    for owner, gives_back in steps:
        if gives_back and held[owner]:
            places.give_back(owner)
            held[owner] -= 1
        free = places.free
        shares = taken(places, owner)
        held[owner] += shares.get(owner, 0)
        assert held[owner] <= 3
        assert held[owner] or not free
        assert places.free == 8 - sum(held.values()) >= 0
