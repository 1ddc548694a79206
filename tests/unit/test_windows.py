import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from occluscope.windows import WindowGrid, count_positions

lengths = st.integers(1, 60)


@st.composite
def grids(draw: st.DrawFn) -> tuple[WindowGrid, tuple[int, int]]:
    size = draw(st.tuples(lengths, lengths))
    window = draw(st.tuples(st.integers(1, size[0]), st.integers(1, size[1])))
    stride = draw(st.tuples(lengths, lengths))
    return WindowGrid.over(size, window, stride), size


def test_steps_that_land_on_the_edge_need_no_further_position() -> None:
    assert WindowGrid.over((224, 224), (32, 32), (16, 16)).origins_y == tuple(range(0, 193, 16))


def test_the_last_window_is_flush_where_steps_do_not_land() -> None:
    assert WindowGrid.over((10, 10), (4, 3), (4, 5)).origins_y == (0, 4, 6)
    assert WindowGrid.over((10, 10), (4, 3), (4, 5)).origins_x == (0, 5, 7)


def test_a_window_as_large_as_the_picture_stands_once() -> None:
    assert WindowGrid.over((7, 9), (7, 9), (3, 3)).shape == (1, 1)


@pytest.mark.parametrize(("window", "stride"), [((5, 4), (1, 1)), ((0, 1), (1, 1)), ((1, 1), (0, 1))])
def test_impossible_windows_are_refused(window: tuple[int, int], stride: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"larger than|must be positive"):
        WindowGrid.over((4, 4), window, stride)


@given(lengths, lengths, lengths)
def test_positions_are_counted_without_making_them(length: int, window: int, stride: int) -> None:
    window = min(window, length)
    grid = WindowGrid.over((length, length), (window, window), (stride, stride))
    assert count_positions(length, window, stride) == len(grid.origins_y)
    assert len(grid) == len(grid.origins()) == len(grid.origins_y) ** 2


@given(grids())
def test_every_window_lies_inside_and_both_edges_are_reached(case: tuple[WindowGrid, tuple[int, int]]) -> None:
    grid, size = case
    for axis, origins in enumerate((grid.origins_y, grid.origins_x)):
        assert origins[0] == 0
        assert origins[-1] + grid.window[axis] == size[axis]
        assert list(origins) == sorted(set(origins))


@given(grids(), st.integers(0, 2**32 - 1))
def test_mean_per_pixel_is_the_mean_over_covering_windows(case: tuple[WindowGrid, tuple[int, int]], seed: int) -> None:
    grid, size = case
    values = np.random.default_rng(seed).normal(size=grid.shape)
    total, count = np.zeros(size), np.zeros(size)
    for (y, x), value in zip(grid.origins(), values.ravel(), strict=True):
        total[y : y + grid.window[0], x : x + grid.window[1]] += value
        count[y : y + grid.window[0], x : x + grid.window[1]] += 1
    expected = np.divide(total, count, out=np.full(size, np.nan), where=count > 0)
    np.testing.assert_allclose(grid.mean_per_pixel(values, size), expected, atol=1e-9)


def test_centre_counts_row_by_row() -> None:
    grid = WindowGrid.over((10, 20), (4, 6), (3, 7))
    assert grid.centre(len(grid.origins_x)) == (3 + 2, 0 + 3)


@given(grids(), st.integers(1, 40))
def test_tiles_hold_every_window_once_and_no_more_than_asked(
    case: tuple[WindowGrid, tuple[int, int]], most: int
) -> None:
    grid, _ = case
    seen = np.zeros(len(grid), dtype=int)
    for tile, positions in grid.tiles(most):
        assert len(tile) == len(positions) <= most
        assert np.array_equal(grid.origins()[positions], tile.origins())
        seen[positions] += 1
    assert (seen == 1).all()
