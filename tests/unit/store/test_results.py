"""Pages of a job's results."""

import pytest

from service.store.database import Database
from service.store.jobs import images_of, results_of
from service.store.leases import claim_unit
from service.store.results import names_of_results, results_page
from service.store.tables import Artifact, Job, Metric
from service.store.units import commit_unit, report_progress
from tests.unit.store.conftest import SubmitUnits, outcome

MODELS = ("resnet18", "resnet50")


def commit(database: Database, unit_id: str, image: str | None, seed: int) -> None:
    with database.writing() as session:
        claim = claim_unit(session, unit_id, "w", 30)
        assert claim is not None
        assert commit_unit(session, claim, outcome(seed, image))


def version(database: Database, job_id: str) -> int:
    with database.reading() as session:
        return session.get_one(Job, job_id).results_version


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_pages_give_every_result_once_each_pictures_together(
    database: Database, submit: SubmitUnits, limit: int
) -> None:
    """Two models, seven pictures of which one has nothing yet, and one unit whose results belong to no picture."""
    job_id, unit_ids = submit(7, models=MODELS)
    with database.reading() as session:
        images = images_of(session, job_id)
    for number, unit_id in enumerate(unit_ids):
        if number % 7 != 3:
            commit(database, unit_id, None if number == 5 else images[number % 7], number)
    seen: list[Artifact | Metric] = []
    after, pages = -1, 0
    with database.reading() as session:
        while after is not None:
            page = results_page(session, job_id, limit=limit, after=after)
            assert len({row.image_id for row in page.artifacts} - {None}) <= limit
            seen += [*page.artifacts, *page.metrics]
            after, pages = page.cursor, pages + 1  # type: ignore[assignment]
        metrics, artifacts = results_of(session, job_id)
    assert pages == -(-6 // limit)
    assert len(seen) == len({row.id for row in seen})
    assert {row.id for row in seen} == {row.id for row in [*metrics, *artifacts]}
    places = [images.index(row.image_id) if row.image_id else 7 for row in seen if isinstance(row, Artifact)]
    assert places == sorted(places)


def test_results_of_one_picture_and_of_one_name(database: Database, submit: SubmitUnits) -> None:
    job_id, unit_ids = submit(3)
    with database.reading() as session:
        images = images_of(session, job_id)
    for number, unit_id in enumerate(unit_ids):
        commit(database, unit_id, images[number] if number < 2 else None, number)
    with database.reading() as session:
        one = results_page(session, job_id, limit=5, image=images[1])
        assert {row.image_id for row in one.artifacts} == {row.image_id for row in one.metrics} == {images[1]}
        assert (len(one.artifacts), len(one.metrics), one.cursor) == (2, 1, None)
        maps = results_page(session, job_id, limit=5, name="map")
        assert [(row.name, row.image_id) for row in maps.artifacts] == [("map", image) for image in (*images[:2], None)]
        assert len(maps.metrics) == 3
        assert sorted(names_of_results(session, job_id)) == ["map", "rows"]
        nothing = results_page(session, job_id, limit=5, name="other")
        assert nothing.artifacts == []


def test_every_change_of_results_is_another_version(database: Database, submit: SubmitUnits) -> None:
    job_id, (first, second) = submit(2)
    versions = [version(database, job_id)]
    with database.writing() as session:
        claim = claim_unit(session, first, "w", 30)
        assert claim is not None
        assert report_progress(session, claim, 10)
    assert version(database, job_id) == versions[0]
    with database.writing() as session:
        assert report_progress(session, claim, 20, outcome().results)
    versions.append(version(database, job_id))
    with database.writing() as session:
        assert commit_unit(session, claim, outcome())
    versions.append(version(database, job_id))
    commit(database, second, None, 1)
    versions.append(version(database, job_id))
    assert versions == sorted(set(versions))
