"""occlusion: computes the units of all stages.

An `Experiment` is what is asked of a picture, `Responses` what the model answered, and `outcome` makes the results of
both. A picture that one unit computes goes through all of it there. For a picture that is split, the units of the first
stage run windows, those of `curves` run curves, and those of `maps` make the results.
"""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from occluscope.analyses.contract import Outcome, Report, Unit, Work
from occluscope.analyses.occlusion.experiment import Experiment
from occluscope.analyses.occlusion.outcome import outcome
from occluscope.analyses.occlusion.parameters import OcclusionParameters
from occluscope.analyses.occlusion.responses import Responses, Shares, kept
from occluscope.analyses.occlusion.running import Runner, precision_error
from occluscope.analyses.occlusion.spec import Share
from occluscope.analyses.occlusion.target_maps import target_maps
from occluscope.models.loading import LoadedModel
from occluscope.pictures.preparation import Picture


def compute(
    model: LoadedModel, pictures: Sequence[Picture], params: OcclusionParameters, unit: Unit, report: Report
) -> Outcome:
    """Occlusion maps of one picture: drop = p₀ − p of the probability that is followed, or another score.

    pictures: the picture, then the mask if the region is one. report: called after every batch with the number of
    windows and of curves' passes done. A unit with a share of the rows keeps its scores for `curves` and `maps`.
    """
    experiment = Experiment(params, model.card, pictures, unit.images[0])
    runner, share = Runner(model, experiment, report), Share.of(unit)
    if share is None:
        return outcome(experiment, runner.responses())
    return Outcome([], [], kept(runner.base, runner.share(share)))


def curves(work: Work, report: Report) -> Outcome:
    """Insertion and deletion by one map of a split picture: two arrays of scores, kept for `maps`."""
    number, target = work.unit.payload["window"], work.unit.payload["target"]
    experiment, shares = _experiment(work), Shares.of(work)
    scan = shares.response(number).scan
    base = _base(work, experiment, shares, report)
    places = experiment.map_places(base)
    if places.index(places[target]) < target:  # the target's map is an earlier target's, and so are its curves
        return Outcome([], [])
    one = target_maps(experiment, base, number, experiment.grid(number), scan)[places[target]]
    return Outcome([], [], dict(Runner(work.model(), experiment, report).curves(one)))


def maps(work: Work, report: Report) -> Outcome:
    """The results of a split picture, from its shares: those that one unit would have given.

    Runs the model only to measure the error of half precision. A map whose unit of `curves` failed has no curves.
    """
    experiment, shares = _experiment(work), Shares.of(work)
    base, sizes = _base(work, experiment, shares, report), []
    for number in range(len(experiment.params.window)):
        report(0)
        response = shares.response(number)
        places = experiment.map_places(base)
        response = replace(response, curves={places[target]: found for target, found in response.curves.items()})
        if experiment.params.precision == "half":
            error = precision_error(work.model(), experiment, base, number, response.scan)
            response = replace(response, precision_error=error)
        sizes.append(response)
    return outcome(experiment, Responses(base, sizes))


def _base(work: Work, experiment: Experiment, shares: Shares, report: Report) -> Tensor:
    """All scores without occlusion; the model runs once if the shares do not have them."""
    base = shares.base
    return Runner(work.model(), experiment, report).base if base is None else base


def _experiment(work: Work) -> Experiment:
    return Experiment(work.params, work.card, work.pictures, work.unit.images[0])
