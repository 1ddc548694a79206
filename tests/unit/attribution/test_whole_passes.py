"""What Captum's `Occlusion` takes beside pictures and modules: the same numbers, by whole passes."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import Occlusion as CaptumOcclusion
from torch import Tensor, nn

import occluscope

LIMIT = 1e-5


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def both(model: Callable[..., Any], inputs: Any, **arguments: Any) -> None:
    """Ours and Captum's agree in shape, type and number."""
    theirs = CaptumOcclusion(model).attribute(inputs, **arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours = occluscope.Occlusion(model).attribute(inputs, **arguments)
    assert isinstance(ours, tuple) == isinstance(theirs, tuple)
    all_ours, all_theirs = ((found,) if isinstance(found, Tensor) else found for found in (ours, theirs))
    assert max(float(one.abs().max()) for one in all_theirs) > 1e-4
    for one, other in zip(all_ours, all_theirs, strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        scale = max(1.0, float(other.abs().max()))
        np.testing.assert_allclose(one.numpy() / scale, other.numpy() / scale, atol=LIMIT)


def mixed(x: Tensor, y: Tensor, z: Tensor, factor: float = 1.0) -> Tensor:
    """Three inputs of ranks 1, 2 and 4, three outputs a sample."""
    found = torch.stack([x * y.sum(1), z.flatten(1).norm(dim=1) + x, (z.amax((1, 2, 3)) * y[:, 0]).tanh()], dim=1)
    return found * factor


MIXED = (random(3, seed=1), random(3, 7, seed=2), random(3, 2, 5, 6, seed=3))
SHAPES: dict[str, Any] = {"sliding_window_shapes": ((), (3,), (2, 2, 4)), "strides": (1, (2,), (1, 2, 3))}


@pytest.mark.parametrize("at_once", [1, 2, 5, 100])
def test_inputs_of_several_ranks(at_once: int) -> None:
    both(mixed, MIXED, **SHAPES, target=1, perturbations_per_eval=at_once)


@pytest.mark.parametrize(
    "target",
    [2, (1,), [0, 2, 1], torch.tensor([2, 0, 1]), torch.tensor(1), torch.tensor([1]), [(0,), (1,), (2,)], None],
)
@pytest.mark.parametrize("at_once", [1, 4])
def test_targets(target: Any, at_once: int) -> None:
    both(mixed, MIXED, **SHAPES, target=target, perturbations_per_eval=at_once)


@pytest.mark.parametrize("target", [(1,), (1, 3), [(0, 1), (2, 3), (1, 0)], 0])
def test_targets_of_outputs_with_more_axes(target: Any) -> None:
    weight = random(5, 3, 4)
    both(
        lambda x: torch.einsum("bi,ijk->bjk", x.tanh(), weight), random(3, 5, seed=4), sliding_window_shapes=(2,),
        target=target, perturbations_per_eval=3,
    )  # fmt: skip


@pytest.mark.parametrize(
    "baselines",
    [
        (0.5, -1, 2.0),
        (random(3, seed=5), random(1, 7, seed=6), random(3, 2, 5, 6, seed=7)),
        (random(1, seed=5), random(7, seed=6), random(5, 6, seed=7)),
        (1, random(3, 1, seed=6), 0),
    ],
)
def test_baselines(baselines: Any) -> None:
    both(mixed, MIXED, **SHAPES, target=1, baselines=baselines, perturbations_per_eval=4)


@pytest.mark.parametrize("at_once", [1, 3])
def test_further_arguments(at_once: int) -> None:
    def model(x: Tensor, of_samples: Tensor, scalar: Tensor, name: str, nothing: None) -> Tensor:
        assert name == "sine"
        assert nothing is None
        return (x * of_samples).sin() * scalar

    more = (random(3, 1, seed=8), torch.tensor(2.0), "sine", None)
    both(
        model, random(3, 8), sliding_window_shapes=(3,), strides=2, target=0, additional_forward_args=more,
        perturbations_per_eval=at_once,
    )  # fmt: skip
    both(mixed, MIXED, **SHAPES, target=0, additional_forward_args=3.0, perturbations_per_eval=at_once)
    both(
        lambda x, y: x * y, random(3, 4), sliding_window_shapes=(2,), target=0,
        additional_forward_args=random(3, 4, seed=9), perturbations_per_eval=at_once,
    )  # fmt: skip


@pytest.mark.parametrize(
    "model",
    [
        lambda x: x.sin().sum(),
        lambda x: float(x.sin().sum()),
        lambda x: int(x.sum() * 100),
        lambda x: x.sin().sum().reshape(1),
        lambda x: x.sin().mean(0),
        lambda x: x.double().sin(),
    ],
    ids=["a scalar", "a float", "an int", "one number", "a batch's means", "one an input"],
)
def test_outputs_that_are_not_one_a_sample(model: Callable[..., Any]) -> None:
    both(model, random(4, 5), sliding_window_shapes=(2,), strides=1)


def test_outputs_that_do_not_grow_with_the_inputs_take_one_window_at_once() -> None:
    for one in (CaptumOcclusion, occluscope.Occlusion):
        with pytest.raises(AssertionError, match="perturbations_per_eval"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            one(lambda x: x.sum()).attribute(random(4, 5), sliding_window_shapes=(2,), perturbations_per_eval=2)


@pytest.mark.parametrize("baseline", [0, 3, 0.5])
def test_whole_numbers(baseline: float) -> None:
    tokens = torch.randint(0, 9, (2, 7), generator=torch.Generator().manual_seed(1))
    both(lambda x: (x.float() * 0.3).sin().cumsum(1), tokens, sliding_window_shapes=(2,), target=6, baselines=baseline)
    both(lambda x: x.cumsum(1), tokens, sliding_window_shapes=(2,), target=6, baselines=3)


def test_words() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(30, 8), nn.Flatten(), nn.Linear(56, 4))
    tokens = torch.randint(1, 30, (2, 7), generator=torch.Generator().manual_seed(1))
    both(model, tokens, sliding_window_shapes=(2,), strides=2, target=3, perturbations_per_eval=2)


@pytest.mark.parametrize("shape", [(2, 3, 6, 5, 7), (2, 1, 40)])
def test_sound_and_volumes(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    kind = nn.Conv3d if len(shape) == 5 else nn.Conv1d
    model = nn.Sequential(kind(shape[1], 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)).eval()
    model(torch.zeros(shape))
    window = (1, *(min(4, length) for length in shape[2:]))
    both(model, random(*shape), sliding_window_shapes=window, strides=(1, *(3 for _ in shape[2:])), target=[0, 2])


class Noisy(nn.Module):
    """Batch norm and dropout, whose outputs hang on which pictures run together, and in which order."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Dropout(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
        )

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers(x)
        return found


@pytest.mark.parametrize("at_once", [1, 3])
def test_training_mode_with_captums_random_numbers(at_once: int) -> None:
    arguments: dict[str, Any] = {
        "sliding_window_shapes": (3, 4, 5), "strides": (3, 4, 3), "target": 1, "perturbations_per_eval": at_once,
    }  # fmt: skip
    model = Noisy()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(5)
    with pytest.warns(UserWarning, match="training mode; whole forward passes"):
        ours = occluscope.Occlusion(model).attribute(random(2, 3, 12, 14), **arguments)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    torch.manual_seed(5)
    theirs = CaptumOcclusion(model).attribute(random(2, 3, 12, 14), **arguments)
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=LIMIT)


def test_noise_in_a_module_in_eval_mode() -> None:
    class Jitter(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x + torch.randn_like(x)).sin().flatten(1)

    arguments: dict[str, Any] = {"sliding_window_shapes": (3, 4, 5), "strides": (3, 4, 3), "target": 1}
    model = Jitter().eval()
    torch.manual_seed(5)
    with pytest.warns(UserWarning, match="whole forward passes"):
        ours = occluscope.Occlusion(model).attribute(random(2, 3, 12, 14), **arguments)
    torch.manual_seed(5)
    theirs = CaptumOcclusion(model).attribute(random(2, 3, 12, 14), **arguments)
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=LIMIT)


def test_pictures_with_several_numbers_each_are_followed() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2)).eval()
    arguments: dict[str, Any] = {"sliding_window_shapes": (3, 4, 5), "strides": (2, 3, 4)}
    targets: list[Any] = [None, 1, (2, 1), [(1, 0, 1), (5, 1, 1)]]
    for target in targets:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ours = occluscope.Occlusion(model).attribute(random(2, 3, 17, 22), target=target, **arguments)
        theirs = CaptumOcclusion(model).attribute(random(2, 3, 17, 22), target=target, **arguments)
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=LIMIT)


def test_the_inputs_stay_as_they_are() -> None:
    def writes(x: Tensor) -> Tensor:
        return x.mul_(2).cumsum(1)

    given = random(2, 5)
    kept = given.clone()
    with pytest.warns(UserWarning, match="layers of a function"):
        occluscope.Occlusion(writes).attribute(given, sliding_window_shapes=(2,), target=0)
    assert torch.equal(given, kept)


def test_gradients_are_asked_of_nothing() -> None:
    given = random(2, 5).requires_grad_()
    both(lambda x: x.cumsum(1), given, sliding_window_shapes=(2,), target=4)


def test_one_warning_for_all_calls() -> None:
    occlusion = occluscope.Occlusion(mixed)
    with pytest.warns(UserWarning, match="layers of a function are not known; whole forward passes"):
        occlusion.attribute(MIXED, **SHAPES, target=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        occlusion.attribute(MIXED, **SHAPES, target=1)


def test_what_captum_has_by_name() -> None:
    assert occluscope.Occlusion(forward_func=mixed).forward_func is mixed
    with pytest.raises(NotImplementedError):
        occluscope.Occlusion(mixed).attribute_future()
    with pytest.raises(TypeError, match="forward_func must be"):
        occluscope.Occlusion(3)  # type: ignore[arg-type]


def test_progress_is_shown_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    for at_once in (1, 4):
        both(mixed, MIXED, **SHAPES, target=1, perturbations_per_eval=at_once)
        capsys.readouterr()
        with pytest.warns(UserWarning, match="function"):
            occluscope.Occlusion(mixed).attribute(
                MIXED, **SHAPES, target=1, perturbations_per_eval=at_once, show_progress=True
            )
        written = capsys.readouterr()
        assert "Occlusion attribution: 100%" in written.err
        assert not written.out


@pytest.mark.parametrize(
    "change",
    [
        {"sliding_window_shapes": ((), (3,))},
        {"sliding_window_shapes": ((), (3, 1), (2, 2, 4))},
        {"sliding_window_shapes": ((), [3], (2, 2, 4))},
        {"strides": 2},
        {"strides": (1, (2, 2), 1)},
        {"strides": (1, 4, 1)},
        {"baselines": (0, "grey", 0)},
        {"target": [0, 1]},
        {"target": (0, 1)},
        {"target": 1.5},
        {"perturbations_per_eval": 0},
    ],
)
def test_what_captum_refuses_is_refused_in_its_kind(change: dict[str, Any]) -> None:
    arguments = {**SHAPES, "target": 1, **change}
    with pytest.raises(AssertionError):
        CaptumOcclusion(mixed).attribute(MIXED, **arguments)
    with pytest.raises(AssertionError) as caught:
        occluscope.Occlusion(mixed).attribute(MIXED, **arguments)
    assert isinstance(caught.value, ValueError)
