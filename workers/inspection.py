"""A unit that inspects a model: loads it, runs it once, and gives its card."""

from occluscope.engine.memory import is_out_of_memory
from occluscope.errors import OccluscopeError
from occluscope.models.card import ModelCard
from occluscope.models.inspecting import inspected
from occluscope.models.loading import load
from service.store.database import Database
from service.store.inspections import description_of
from service.store.leases import Claim


def inspected_card(claim: Claim, database: Database) -> ModelCard:
    """The card of the model that a claimed unit inspects.

    Raises
    ------
    OccluscopeError
        The model cannot be loaded or run; the message says why.
    """
    with database.reading() as session:
        description = description_of(session, claim.job_id)
    try:
        loaded = load(ModelCard(**dict(description), layers=()))
        return inspected(loaded.module, description)
    except OccluscopeError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        said = (str(error).strip() or "no message").splitlines()[0]
        reason = f"model '{description.name}' cannot be inspected: {type(error).__name__}: {said}"
        raise OccluscopeError(reason) from error
