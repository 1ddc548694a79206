"""From outputs to scores: names, units, ranges, and the numbers against a closed form."""

import math

import numpy as np
import pytest
import torch

from occluscope.analyses import names, spec
from occluscope.errors import InvalidInputError
from occluscope.models import card
from occluscope.models.heads import ChannelHead, ClassHead, own_head

LITE0 = card("efficientnet_lite0")


def test_a_classifier_is_followed_by_the_probabilities_of_its_classes() -> None:
    head = own_head(LITE0)
    logits = torch.linspace(-3, 4, 2000).view(2, 1000)
    exponentials = np.exp(logits.double().numpy())
    scores = head.scores(logits)
    assert isinstance(head, ClassHead)
    assert (head.count, head.unit, head.range) == (1000, "probability", (0.0, 1.0))
    assert scores.dtype == torch.float64
    np.testing.assert_allclose(scores, exponentials / exponentials.sum(1, keepdims=True), rtol=1e-12)
    assert head.top(scores).tolist() == [999, 999]
    assert (head.name(967), head.shown(967), head.index("espresso")) == ("espresso", "p(espresso)", 967)


def test_a_channel_is_followed_by_its_sum_as_it_is() -> None:
    layer = LITE0.map_layers()[0]
    head = ChannelHead(LITE0, layer.name)
    sums = torch.arange(layer.shape[0], dtype=torch.float32)[None] / 3
    assert head.count == layer.shape[0]
    assert (head.unit, head.range, head.is_bounded) == ("activation", (-math.inf, math.inf), False)
    assert torch.equal(head.scores(sums), sums.double())
    assert head.shown(2) == f"activation of channel 2 of {layer.name}"
    with pytest.raises(LookupError, match=f"has channels 0 to {layer.shape[0] - 1}"):
        head.index(layer.shape[0])


@pytest.mark.parametrize("asked", [1000, "espreso"])
def test_every_analysis_that_follows_a_target_says_alike_what_the_model_has_not(asked: int | str) -> None:
    found = set()
    for analysis in [spec(name) for name in names()]:
        if "target" not in analysis.parameters.model_fields:
            continue
        with pytest.raises(InvalidInputError) as error:
            analysis.plan(analysis.parse({"target": asked}), LITE0, [], {})
        found.add(tuple((one.path, one.message) for one in error.value.errors))
    ((only,),) = found
    assert only[0] == "params.target"
