"""A worker of the running service inspects a model that was described."""

from occluscope.client import Client
from occluscope.models import card
from occluscope.models.card import Description
from service.running.stack import Stack
from service.store.database import Database
from service.store.inspections import card_of, queue_inspection
from service.store.keys import NOBODY
from service.store.tables import Model
from tests.parts import wait_until


def test_a_described_model_gets_its_card_and_no_job_is_seen(stack: Stack, client: Client) -> None:
    """Nobody announces it: the reconciler does."""
    shipped = card("efficientnet_lite1")
    described = Description(**{**shipped.model_dump(exclude={"layers"}), "name": "flowers"})
    database = Database(stack.settings.database_url)
    with database.writing() as session:
        model_id = queue_inspection(session, NOBODY, described).id

    def model() -> Model:
        with database.reading() as session:
            return session.get_one(Model, model_id)

    wait_until(lambda: model().card or model().error, 60)
    assert model().error is None
    assert card_of(model()) == shipped.model_copy(update={"name": "flowers"})
    assert "flowers" not in {job.model for job in client.jobs()}
    database.close()
