from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from alembic import command
from sqlalchemy import insert, inspect, select, text, update

from occluscope import analyses
from occluscope.analyses.contract import Unit as PlannedUnit
from service.store.database import Database
from service.store.deliveries import owners_due
from service.store.ending import cancel_job
from service.store.given import NOTHING
from service.store.images import add_image, find_image
from service.store.jobs import find_by_idempotency_key, images_of, results_of, submit_job
from service.store.keys import NOBODY
from service.store.leases import claim_unit, give_back_unit
from service.store.migrate import alembic_config, migrate
from service.store.packing import PackedOutcome, pack_outcome
from service.store.planning import units_made
from service.store.results import results_page
from service.store.scheduling import due_unit
from service.store.stages import models_of, stages_of
from service.store.tables import Artifact, Base, Job, Metric, NamedImage, Unit, new_id
from service.store.units import commit_unit, fail_unit, give_results
from tests.conftest import encode, random_picture
from tests.unit.store.conftest import SubmitUnits, given, outcome


@pytest.fixture(autouse=True)
def _newest_schema_afterwards(database: Database) -> Iterator[None]:
    """Other tests use the same server, also when one of these fails halfway."""
    yield
    migrate(database)


def test_models_and_migrations_agree(database: Database) -> None:
    """`alembic check` finds nothing to add: column for column, index for index."""
    command.check(alembic_config(database))


def test_migrating_twice_changes_nothing(database: Database) -> None:
    migrate(database)
    assert set(Base.metadata.tables) <= set(inspect(database.engine).get_table_names())


def test_what_was_stored_before_several_models_is_still_there(database: Database, submit: SubmitUnits) -> None:
    """A job that had ended, and one whose units had kept arrays and are run again."""
    (done, (unit_id,)), (waiting, kept_units) = submit(1), submit(2, later=True)
    for unit in (unit_id, kept_units[0]):
        with database.writing() as session:
            claim = claim_unit(session, unit, "w", 30)
            assert claim is not None
            commit_unit(session, claim, outcome())
    config = alembic_config(database)
    command.downgrade(config, "0003")
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE units SET kept = :kept WHERE id = :id"), {"kept": b"x", "id": kept_units[0]})
    command.upgrade(config, "head")
    with database.reading() as session:
        assert models_of(session, [done, waiting]) == {done: ["efficientnet_lite0"], waiting: ["efficientnet_lite0"]}
        metrics, artifacts = results_of(session, done)
        assert [metric.model for metric in metrics] == ["efficientnet_lite0"]
        assert [artifact.model for artifact in artifacts] == ["efficientnet_lite0"] * 2
        assert results_of(session, waiting) == ([], [])
        assert {unit.state for unit in session.scalars(select(Unit).where(Unit.job_id == waiting))} == {"queued"}


def test_what_was_stored_before_versions_comes_after_0(database: Database, submit: SubmitUnits) -> None:
    """And before the version that the job has now: who follows it is given no old result as a new one."""
    job_id, (done, waiting) = submit(2)
    with database.writing() as session:
        claim = claim_unit(session, done, "w", 30)
        assert claim is not None
        commit_unit(session, claim, outcome(1))
    config = alembic_config(database)
    command.downgrade(config, "0013")
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET results_version = 0"))  # as of results before 0010
    command.upgrade(config, "head")
    with database.reading() as session:
        job = session.get_one(Job, job_id)
        version = job.results_version
        assert len(results_page(session, job_id, limit=5, since=0, until=version).metrics) == 1
        assert results_page(session, job_id, limit=5, since=version).metrics == []
    with database.writing() as session:
        claim = claim_unit(session, waiting, "w", 30)
        assert claim is not None
        commit_unit(session, claim, outcome(2))
    with database.reading() as session:
        (metric,) = results_page(session, job_id, limit=5, since=version).metrics
        assert metric.value == 2.0


def test_what_was_stored_before_keys_is_still_its_owners(database: Database, submit: SubmitUnits) -> None:
    """A repeated submission still gives the same job, and pictures can still be used."""
    job_id, _ = submit(key="k")
    config = alembic_config(database)
    command.downgrade(config, "0005")
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET idempotency_key = 'k'"))
    command.upgrade(config, "head")
    with database.reading() as session:
        found = find_by_idempotency_key(session, "k", NOBODY)
        assert found is not None
        assert found.id == job_id
        (image_id,) = images_of(session, job_id)
        assert find_image(session, image_id, NOBODY) is not None


def test_what_was_stored_before_stages_is_counted_and_goes_on(database: Database, submit: SubmitUnits) -> None:
    """A job half done is ended by its last unit; its mask is kept; results that bore one name are told apart."""
    mask, _ = add_image(database, encode(random_picture(100)), NOBODY)
    job_id, unit_ids = submit(2, models=("resnet18", "resnet50"), masks=[mask.id])
    for unit_id, succeeds in zip(unit_ids[:3], (True, False, True), strict=True):
        with database.writing() as session:
            claim = claim_unit(session, unit_id, "w", 30)
            assert claim is not None
            assert commit_unit(session, claim, outcome()) if succeeds else fail_unit(session, claim, "reason")
    config = alembic_config(database)
    command.downgrade(config, "0007")
    artifacts = Base.metadata.tables["artifacts"]
    with database.engine.begin() as connection:
        first = connection.execute(select(artifacts).where(artifacts.c.unit_id == unit_ids[0]).limit(1)).one()
        copies = [{**first._mapping, "id": new_id(), "position": position} for position in (5, 6)]
        connection.execute(insert(artifacts), copies)
    command.upgrade(config, "head")
    with database.reading() as session:
        counts = [(stage.model, stage.units, stage.still_open, stage.failed) for stage in stages_of(session, job_id)]
        assert counts == [("resnet18", 2, 0, 1), ("resnet50", 2, 1, 0)]
        assert session.scalars(select(NamedImage.image_id)).all() == [mask.id]
        of_unit = select(Artifact.variant).where(Artifact.unit_id == unit_ids[0], Artifact.name == first.name)
        assert {str(variant) for variant in session.scalars(of_unit)} == {"", " (5)", " (6)"}
    with database.writing() as session:
        claim = claim_unit(session, unit_ids[3], "w", 30)
        assert claim is not None
        assert commit_unit(session, claim, outcome())
        assert units_made(session) == 1


def test_what_waited_to_be_combined_before_stages_had_names_is_planned_anew(
    database: Database, submit: SubmitUnits
) -> None:
    """The last unit that succeeded runs again and plans its model's next stage; what had ended stays ended."""
    job_id, unit_ids = submit(2, later=True)
    for unit_id in unit_ids:
        with database.writing() as session:
            claim = claim_unit(session, unit_id, "w", 30)
            assert claim is not None
            assert commit_unit(session, claim, outcome())
    config = alembic_config(database)
    command.downgrade(config, "0011")
    with database.engine.begin() as connection:
        roles = connection.execute(text("SELECT role FROM units ORDER BY position")).scalars().all()
        assert roles == ["work", "work", "combine"]
        assert connection.execute(text("SELECT combines FROM jobs")).scalar_one()
    command.upgrade(config, "head")
    for stage, position in (("work", 1), ("means", 2)):
        with database.writing() as session:
            due = due_unit(session)
            claim = claim_unit(session, due, "w", 30) if due else None
            assert claim is not None
            assert (claim.stage, session.get_one(Unit, claim.unit_id).position) == (stage, position)
            assert commit_unit(session, claim, outcome())
    with database.reading() as session:
        job = session.get_one(Job, job_id)
        assert (job.state, job.error) == ("succeeded", None)
        assert [(stage.name, stage.still_open, stage.steps_done) for stage in stages_of(session, job_id)] == [
            ("work", 0, 200),
            ("means", 0, 1),
        ]
        assert job.stored_bytes == 3 * sum(result.stored_bytes for result in outcome().results)


def test_of_two_models_one_waited_to_be_combined_and_both_end(database: Database, submit: SubmitUnits) -> None:
    """The open unit goes, so the places of the others are no longer without a gap."""
    job_id, _ = submit(2, later=True, models=("efficientnet_lite0", "resnet18"))
    for _ in range(4):
        commit_due(database, "work")
    with database.reading() as session:
        last = session.scalars(select(Unit.id).where(Unit.stage == "means").order_by(Unit.position)).all()[-1]
    with database.writing() as session:
        claim = claim_unit(session, last, "w", 30)
        assert claim is not None
        assert commit_unit(session, claim, outcome())
    config = alembic_config(database)
    command.downgrade(config, "0011")
    command.upgrade(config, "head")
    for stage in ("work", "means"):
        commit_due(database, stage)
    with database.reading() as session:
        assert session.get_one(Job, job_id).error is None
        assert all(stage.has_ended for stage in stages_of(session, job_id) if stage.name != "compare")


SHARES = [{"share": [0, 2]}, {"share": [1, 2]}]


def submit_split_picture(database: Database) -> str:
    """A job of occlusion on two pictures, each in two shares."""
    images = [add_image(database, encode(random_picture(number)), NOBODY)[0].id for number in range(2)]
    with database.writing() as session:
        return submit_job(
            session,
            analysis="occlusion",
            params={"window": [32, 32]},
            images=images,
            units={"resnet18": [PlannedUnit((image,), 100, share) for image in images for share in SHARES]},
            request_sha256="0" * 64,
        ).id


def commit_due(database: Database, stage: str) -> None:
    """The unit that is due; of a first stage with an array for the later ones."""
    with database.writing() as session:
        due = due_unit(session)
        claim = claim_unit(session, due, "w", 30) if due else None
        assert claim is not None
        assert claim.stage == stage
        kept = {"drops": np.zeros(3)} if stage == "work" else {}
        assert commit_unit(session, claim, pack_outcome(replace(given(), kept=kept)))


def units_by_stage(database: Database, column: str) -> list[tuple[str, str]]:
    with database.engine.begin() as connection:
        found = connection.execute(text(f"SELECT {column}, state FROM units ORDER BY position"))
        return [(row[0], row[1]) for row in found]


def bytes_of(results: int) -> int:
    """What so many units' results take."""
    return results * sum(result.stored_bytes for result in outcome().results)


def assert_ends_as_ever(database: Database, job_id: str) -> None:
    """From the last share on: curves and maps of both pictures, and each unit's results counted once."""
    for stage in ("work", "curves", "curves", "maps", "maps"):
        commit_due(database, stage)
    with database.reading() as session:
        job = session.get_one(Job, job_id)
        assert (job.state, job.error, job.stored_bytes) == ("succeeded", None, bytes_of(8))
        assert [(stage.name, stage.still_open, stage.units) for stage in stages_of(session, job_id)] == [
            ("work", 0, 4),
            ("curves", 0, 2),
            ("maps", 0, 2),
        ]


def test_split_pictures_that_waited_for_their_maps_before_stages_are_planned_anew(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version before had one unit for all curves and all maps: it waits, after all shares have ended."""
    job_id = submit_split_picture(database)
    with monkeypatch.context() as without_later_stages:
        spec = replace(analyses.spec("occlusion"), later=())
        without_later_stages.setattr(analyses, "spec", lambda _name: spec)
        for _ in range(4):
            commit_due(database, "work")
    config = alembic_config(database)
    command.downgrade(config, "0011")
    new = {
        "id": f"'{new_id()}'", "position": "4", "role": "'combine'", "state": "'queued'", "steps_total": "1",
        "steps_done": "0", "fence": "0", "attempts": "0", "finished_at": "NULL",
    }  # fmt: skip
    columns = [column["name"] for column in inspect(database.engine).get_columns("units")]
    copied = ", ".join(new.get(column, column) for column in columns)
    with database.engine.begin() as connection:
        connection.execute(
            text(f"INSERT INTO units ({', '.join(columns)}) SELECT {copied} FROM units WHERE position = 3")
        )
        stage = (
            "INSERT INTO stages (job_id, role, model, position, units, still_open, failed, steps_total, steps_done) "
            "VALUES (:job, 'combine', 'resnet18', 1, 1, 1, 0, 1, 0)"
        )
        connection.execute(text(stage), {"job": job_id})
        connection.execute(text("UPDATE jobs SET state = 'running', finished_at = NULL"))
        assert connection.execute(text("SELECT stored_bytes FROM jobs")).scalar_one() == bytes_of(4)
    command.upgrade(config, "head")
    assert units_by_stage(database, "stage") == [("work", "succeeded")] * 3 + [("work", "queued")]
    with database.reading() as session:
        assert session.get_one(Job, job_id).stored_bytes == bytes_of(3)
    assert_ends_as_ever(database, job_id)


@pytest.mark.parametrize("ended", [[], ["curves"], ["curves", "curves"], ["curves", "curves", "maps"]])
def test_split_pictures_between_two_stages_go_down_and_up_again(database: Database, ended: list[str]) -> None:
    """The version before had neither stage: the last share runs again and plans what that had, or these anew."""
    job_id = submit_split_picture(database)
    for stage in ["work"] * 4 + ended:
        commit_due(database, stage)
    config = alembic_config(database)
    command.downgrade(config, "0011")
    assert units_by_stage(database, "role") == [("work", "succeeded")] * 3 + [("work", "queued")]
    with database.engine.begin() as connection:
        assert connection.execute(text("SELECT combines FROM jobs")).scalar_one()
        assert connection.execute(text("SELECT stored_bytes FROM jobs")).scalar_one() == bytes_of(3)
        assert connection.execute(text("SELECT still_open, steps_done FROM stages")).all() == [(1, 300)]
    command.upgrade(config, "head")
    assert_ends_as_ever(database, job_id)


def test_what_is_hidden_is_gone_in_a_version_that_deletes_nothing_later(
    database: Database, submit: SubmitUnits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A unit that was given back, and one that failed; what another's succeeded and a running one's gave stays."""
    monkeypatch.setattr("service.store.given._PORTION_ROWS", 1)
    _, unit_ids = submit(4)
    with database.writing() as session:
        for unit_id, end in zip(unit_ids, ("given back", "failed", "running", "succeeded"), strict=True):
            claim = claim_unit(session, unit_id, "w", 30)
            assert claim is not None
            assert give_results(session, claim, NOTHING, outcome().results, outcome().metrics)
            session.flush()
            if end == "given back":
                assert give_back_unit(session, claim)
            elif end == "failed":
                assert fail_unit(session, claim, "reason")
            elif end == "succeeded":
                assert commit_unit(
                    session, claim, PackedOutcome([], []), NOTHING.plus(outcome().results, outcome().metrics)
                )
    of_each = len(outcome().results)
    by_unit = text("SELECT units.state FROM artifacts JOIN units ON units.id = unit_id ORDER BY units.position")
    kept = ["running"] * of_each + ["succeeded"] * of_each
    with database.engine.begin() as connection:
        assert connection.execute(by_unit).scalars().all() == ["queued", "failed", *kept]
    command.downgrade(alembic_config(database), "0015")
    with database.engine.begin() as connection:
        assert connection.execute(by_unit).scalars().all() == kept
    command.upgrade(alembic_config(database), "head")
    with database.reading() as session:
        given = select(Unit.state).where(Unit.has_given)
        assert session.scalars(given).all() == ["running"]


@pytest.mark.parametrize("stage", ["work", "maps"])
def test_what_units_gave_before_their_end_is_gone_in_a_version_that_would_show_it(
    database: Database, stage: str
) -> None:
    """It was counted nowhere, so nothing is taken off for it."""
    job_id = submit_split_picture(database)
    for ended in ["work"] * 3 if stage == "work" else ["work"] * 4 + ["curves"] * 2:
        commit_due(database, ended)
    with database.writing() as session:
        due = due_unit(session)
        claim = claim_unit(session, due, "w", 30) if due else None
        assert claim is not None
        assert claim.stage == stage
        assert give_results(session, claim, NOTHING, outcome(7).results, outcome(7).metrics)
    command.downgrade(alembic_config(database), "0011")
    with database.engine.begin() as connection:
        assert connection.execute(text("SELECT stored_bytes FROM jobs")).scalar_one() == bytes_of(3)
        for table, of_each in (("artifacts", len(outcome().results)), ("metrics", len(outcome().metrics))):
            of_states = text(f"SELECT state FROM {table} JOIN units ON units.id = unit_id")
            assert connection.execute(of_states).scalars().all() == ["succeeded"] * 3 * of_each
    command.upgrade(alembic_config(database), "head")
    with database.writing() as session:
        session.execute(update(Unit).where(Unit.state == "running").values(state="queued"))
    assert_ends_as_ever(database, job_id)


def test_deliveries_that_were_stored_before_owners_took_turns_are_their_jobs_owners(
    database: Database, submit: SubmitUnits
) -> None:
    job_id, _ = submit(owner="ada")
    with database.writing() as session:
        session.execute(update(Job).values(webhook="https://example.org/"))
        cancel_job(session, job_id)
    config = alembic_config(database)
    command.downgrade(config, "0008")
    command.upgrade(config, "head")
    with database.reading() as session:
        assert owners_due(session) == ["ada"]


def test_variants_of_before_are_their_parts_and_back(database: Database, submit: SubmitUnits) -> None:
    """Of every analysis, of comparisons, and of the only one of its name."""
    old = {
        "occlusion": {"48×48 · fountain": {"window": "48×48", "target": "fountain"}, "48×48": {"window": "48×48"},
                      "fountain pen": {"target": "fountain pen"}, "": {},
                      "48×48 · part 1 of 2": {"window": "48×48", "share": "part 1 of 2"}},
        "correspondence": {"features.0": {"layer": "features.0"}, "f.0 · a · b": {"layer": "f.0", "part": "a · b"}},
        "invariance": {"rotate · features.0": {"family": "rotate", "layer": "features.0"}},
    }  # fmt: skip
    compared = {"a − b · 48×48": {"compared": "a − b", "window": "48×48"}, "a − b": {"compared": "a − b"}}
    config = alembic_config(database)
    stored = {}
    for analysis, variants in old.items():
        _, (unit_id,) = submit(1, analysis)
        with database.writing() as session:
            claim = claim_unit(session, unit_id, "w", 30)
            assert claim is not None
            commit_unit(session, claim, outcome())
            row = session.scalars(select(Metric).where(Metric.unit_id == unit_id)).one()
            of_models = [("m", text_, wanted) for text_, wanted in variants.items()]
            of_none = [("", text_, wanted) for text_, wanted in compared.items() if analysis == "occlusion"]
            for model, text_, wanted in [*of_models, *of_none]:
                given = {"job_id": row.job_id, "unit_id": unit_id, "position": 9, "name": "n", "value": 1.0}
                copy = Metric(**given, model=model)
                session.add(copy)
                session.flush()
                stored[copy.id] = (text_, wanted)
    command.downgrade(config, "0009")
    with database.engine.begin() as connection:
        for metric, (text_, _) in stored.items():
            connection.execute(text("UPDATE metrics SET variant = :v WHERE id = :id"), {"v": text_, "id": metric})
    command.upgrade(config, "head")
    with database.reading() as session:
        found = {metric: session.get_one(Metric, metric).variant.to_json() for metric in stored}
    assert found == {metric: wanted for metric, (_, wanted) in stored.items()}
    command.downgrade(config, "0009")
    with database.engine.begin() as connection:
        texts = {row.id: row.variant for row in connection.execute(text("SELECT id, variant FROM metrics"))}
    assert {metric: texts[metric] for metric in stored} == {metric: text_ for metric, (text_, _) in stored.items()}


def test_every_constraint_bears_the_name_that_its_table_gives_it(database: Database) -> None:
    """Those of the migrations too: a later one can then change them by name, on either database."""
    inspector = inspect(database.engine)
    for table in Base.metadata.sorted_tables:
        declared = {str(constraint.name) for constraint in table.constraints}
        found = [
            inspector.get_pk_constraint(table.name),
            *inspector.get_foreign_keys(table.name),
            *inspector.get_unique_constraints(table.name),
            *inspector.get_check_constraints(table.name),
        ]
        assert {constraint["name"] for constraint in found} == declared


def test_down_and_up_again(database: Database) -> None:
    config = alembic_config(database)
    command.downgrade(config, "base")
    assert inspect(database.engine).get_table_names() == ["alembic_version"]
    command.upgrade(config, "head")
    command.check(config)
