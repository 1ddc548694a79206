"""`occluscope …` as a person types it, against a real service."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from service.running.stack import Stack
from tests.conftest import encode, random_picture
from tests.parts import COMMAND


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "cat.png"
    path.write_bytes(encode(random_picture(50)))
    return path


def run(stack: Stack, *words: str | Path, status: int = 0) -> str:
    """Run a command; gives what it printed, lines joined."""
    environment = {**os.environ, "OCCLUSCOPE_URL": stack.url, "COLUMNS": "200"}
    done = subprocess.run([COMMAND, *words], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def test_submit_wait_and_write_the_results(stack: Stack, picture: Path, tmp_path: Path) -> None:
    words = ("--param", "window=112", "--param", "stride=[56,112]", "--param", "target=espresso")
    printed = run(stack, "submit", "occlusion", "--image", picture, *words, "--wait", "--output", tmp_path / "out")
    assert "succeeded" in printed
    assert "72/72" in printed  # six windows, and 66 passes of the curves
    assert re.search(r"cat\W+base_probability", printed)
    assert Image.open(tmp_path / "out" / "cat-pixel_map-overlay.png").size[1] >= 48
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert {metric["image"] for metric in metrics} == {"cat"}


def test_show_list_download_delete(stack: Stack, picture: Path, tmp_path: Path) -> None:
    job_id = run(stack, "submit", "occlusion", "--image", picture, "--param", "window=224").split()[0]
    assert job_id in run(stack, "jobs")
    while '"succeeded"' not in run(stack, "show", job_id, "--json"):
        pass
    assert json.loads(run(stack, "show", job_id, "--json"))["metrics"]
    assert "{" not in run(stack, "show", job_id).split("results_version")[1]
    assert "max_drop" in run(stack, "show", job_id)
    printed = run(stack, "download", job_id, "--output", tmp_path / "results")
    assert "image-1-drop_map.npy" in printed
    run(stack, "delete", job_id)
    assert "There is no such job" in run(stack, "show", job_id, status=1)


def test_two_pictures_of_the_same_name_do_not_overwrite_each_other(stack: Stack, tmp_path: Path) -> None:
    for seed, folder in enumerate(("a", "b")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "cat.png").write_bytes(encode(random_picture(60 + seed)))
    images = ("--image", tmp_path / "a" / "cat.png", "--image", tmp_path / "b" / "cat.png")
    run(stack, "submit", "occlusion", *images, "--param", "window=224", "--output", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").glob("*-top_classes.csv")} == {
        "cat-1-top_classes.csv",
        "cat-2-top_classes.csv",
    }


def test_models_and_analyses(stack: Stack) -> None:
    assert "efficientnet_lite0" in run(stack, "models")
    assert json.loads(run(stack, "models", "resnet18"))["labels"][967] == "espresso"
    printed = run(stack, "analyses")
    assert "pixel_map" in printed
    assert "[32, 32]" in printed
    assert "[height," in printed


def test_errors_are_one_clear_message(stack: Stack, picture: Path, tmp_path: Path) -> None:
    printed = run(stack, "submit", "occlusion", "--image", picture, "--param", "window=500", status=1)
    assert "params.window: the window (500 × 500) is larger than the input of efficientnet_lite0" in printed
    assert "not name=value" in run(stack, "submit", "occlusion", "--image", picture, "--param", "window", status=2)
    (tmp_path / "no.png").write_bytes(b"no picture")
    assert "file: not a picture" in run(stack, "submit", "occlusion", "--image", tmp_path / "no.png", status=1)
    failed = run(stack, "submit", "occlusion", "--image", picture, "--model", "squeezenet1_0", "--wait", status=1)
    assert "failed: the weights of squeezenet1_0" in failed


def test_without_a_service_it_says_so() -> None:
    environment = {**os.environ, "OCCLUSCOPE_URL": "http://127.0.0.1:9"}
    done = subprocess.run([COMMAND, "jobs"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "is the service running?" in done.stderr


def test_what_people_wrote_is_printed_as_it_is(tmp_path: Path) -> None:
    """Neither brackets nor colons are rich's."""
    words: list[str | Path] = [COMMAND, "keys", "revoke", "[red]:cat:[/red]"]
    environment = {**os.environ, "OCCLUSCOPE_DATABASE_URL": f"sqlite:///{tmp_path / 'a.db'}", "COLUMNS": "80"}
    subprocess.run([COMMAND, "migrate"], env=environment, capture_output=True, check=True)
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "there is no key [red]:cat:[/red];" in done.stderr.replace("\n", " ")


def test_what_another_program_reads_is_cut_nowhere(stack: Stack, picture: Path) -> None:
    job_id = run(stack, "submit", "occlusion", "--image", picture, "--param", "window=224", "--wait").split()[0]
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    environment["OCCLUSCOPE_URL"] = stack.url
    piped = subprocess.run([COMMAND, "jobs"], env=environment, capture_output=True, text=True, check=True).stdout
    (line,) = [line for line in piped.splitlines() if line.startswith(job_id)]
    assert line.split()[1:5] == ["succeeded", "67/67", "occlusion", "efficientnet_lite0"]
    assert job_id in {job["id"] for job in json.loads(run(stack, "jobs", "--json"))}
    assert "occlusion" in {analysis["name"] for analysis in json.loads(run(stack, "analyses", "--json"))}


def test_the_state_of_a_job_is_read_in_a_narrow_terminal(stack: Stack, picture: Path) -> None:
    job_id = run(stack, "submit", "occlusion", "--image", picture, "--param", "window=224", "--wait").split()[0]
    environment = {**os.environ, "OCCLUSCOPE_URL": stack.url, "COLUMNS": "80"}
    printed = subprocess.run([COMMAND, "jobs"], env=environment, capture_output=True, text=True, check=True).stdout
    assert re.search(rf"{job_id} +succeeded +67/67", printed)


def test_results_of_two_jobs_are_not_mixed(stack: Stack, picture: Path, tmp_path: Path) -> None:
    words = ("submit", "occlusion", "--image", picture, "--param", "window=224", "--output", tmp_path / "out")
    job_id = run(stack, *words).split()[0]
    assert "--overwrite" in run(stack, *words, status=2)
    download = ("download", job_id, "--output", tmp_path / "out")
    assert "--overwrite" in run(stack, *download, status=2)
    assert "index.html" in run(stack, *download, "--overwrite")


def test_an_address_without_its_scheme_is_named(stack: Stack) -> None:
    environment = {**os.environ, "OCCLUSCOPE_URL": stack.url.removeprefix("http://")}
    done = subprocess.run([COMMAND, "jobs"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "must begin with http:// or https://" in done.stderr


def test_keys_elsewhere_than_the_service_say_where_to_go_and_leave_nothing(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OCCLUSCOPE_DATABASE_URL"}
    for words in (("list",), ("add", "ada")):
        command = [str(COMMAND), "keys", *words]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "go to the folder in which the service was started" in done.stderr
    assert not list(tmp_path.iterdir())
