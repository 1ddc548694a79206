from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import Flask

from service import large_pictures
from service.api import problems
from service.large_pictures import LARGE_PIXELS, TooManyLargePicturesError

LARGE = LARGE_PIXELS + 1


def test_a_large_picture_waits_for_another_and_no_longer_than_it_may() -> None:
    with (
        large_pictures.turn(LARGE),
        pytest.raises(TooManyLargePicturesError),
        large_pictures.turn(LARGE, wait_seconds=0.01),
    ):
        pytest.fail("two have the one turn")
    with large_pictures.turn(LARGE, wait_seconds=0.01):
        pass


def test_a_small_picture_waits_for_nobody() -> None:
    with large_pictures.turn(LARGE), large_pictures.turn(LARGE_PIXELS, wait_seconds=0.01):
        pass


def test_a_turn_ends_with_an_error_too() -> None:
    with pytest.raises(ZeroDivisionError), large_pictures.turn(LARGE):
        raise ZeroDivisionError
    with large_pictures.turn(LARGE, wait_seconds=0.01):
        pass


def test_all_who_wait_long_enough_have_their_turn_one_at_a_time() -> None:
    at_once, most = 0, 0

    def work(_: int) -> None:
        nonlocal at_once, most
        with large_pictures.turn(LARGE):
            at_once += 1
            most = max(most, at_once)
            at_once -= 1

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(64)))
    assert (at_once, most) == (0, 1)


def test_who_had_no_turn_is_told_when_to_ask_again() -> None:
    app = Flask(__name__)
    problems.register(app)

    @app.get("/")
    def draw() -> str:
        with large_pictures.turn(LARGE, wait_seconds=0.01):
            return "drawn"

    with large_pictures.turn(LARGE):
        refusal = app.test_client().get("/")
    assert refusal.status_code == 503
    assert refusal.mimetype == problems.MEDIA_TYPE
    assert int(refusal.headers["Retry-After"]) > 0
    assert app.test_client().get("/").text == "drawn"
