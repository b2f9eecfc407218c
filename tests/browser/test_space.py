"""Test `sieve space`, and start its app as a Hugging Face Space does, in a frame of its page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest
import yaml
from command_line import Sieve, fault
from packaging.requirements import Requirement
from playwright.sync_api import Browser, Page, Route, expect
from processes import FIRST_PORT

from browser.conftest import fresh_page
from sieve.data_prep.prepare import prepare
from sieve.data_prep.sources.folder import Folder
from sieve.explorer.cli.space import WriteSpace
from sieve.model.backbone.clip import Backbone
from sieve.model.checkpoint import Checkpoint
from sieve.model.collection import Collection

ADDRESS = "https://me-demo.hf.space"
FRAME = f'<iframe src="{ADDRESS}/?q=a+circle" width="1200" height="800"></iframe>'


@pytest.fixture(scope="module")
def lite_collection(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """The pictures, prepared with the bundled backbone."""
    source = Folder(pictures / "images", pictures / "captions.csv", name="my <b>photos</b>")
    out = tmp_path_factory.mktemp("lite") / "lite"
    return prepare(source, Backbone.load("sieve-lite", "cpu"), out, progress=False)


@pytest.fixture(scope="module")
def space(module_home: Path, lite_collection: Collection) -> Path:
    """The folder of a Space, in a new folder."""
    folder = module_home / "new" / "space"
    WriteSpace(folder, "scenes", str(lite_collection.path), licence="MIT", device="cpu").run()
    return folder


def test_space_is_configured_for_gradio_and_the_cpu(
    space: Path, module_home: Path, pictures: Path
) -> None:
    facts, _, text = (space / "README.md").read_text("utf-8")[4:].partition("\n---\n")
    settings = yaml.safe_load(facts)
    assert settings["title"] == "my <b>photos</b>" and "<b>" not in text
    assert (settings["sdk"], settings["app_file"]) == ("gradio", "app.py")
    assert (settings["sdk_version"], settings["license"]) == (version("gradio"), "mit")
    assert settings["python_version"] == f"{sys.version_info.major}.{sys.version_info.minor}"
    first, *pins = (space / "requirements.txt").read_text().splitlines()
    assert first == "--extra-index-url https://download.pytorch.org/whl/cpu"
    needed = {Requirement(pin).name for pin in pins}
    assert needed >= {"torch", "torchvision", "gradio", "open_clip_torch"}
    assert not needed & {"pytest", "datasets", "sieve-explorer"}
    files = [path for path in space.rglob("*") if path.is_file()]
    assert not any(path.is_symlink() for path in files)
    assert not [path for path in files if str(pictures).encode() in path.read_bytes()]
    assert not list((module_home / "codes").iterdir())  # the caches are in the Space only


@pytest.fixture
def running_space(space: Path, tmp_path: Path) -> Iterator[str]:
    """Address of the Space's app, in a new process with the environment of a Space."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    port = str(FIRST_PORT + 60)
    env |= {"SPACE_ID": "me/demo", "SPACE_HOST": "me-demo.hf.space", "GRADIO_SERVER_PORT": port}
    command = [sys.executable, str(space / "app.py")]
    with subprocess.Popen(command, env=env, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as app:
        assert app.stdout is not None
        started = re.match(r"Sieve is at (http://[\w.:]+)", app.stdout.readline())
        try:
            assert started
            yield started[1]
        finally:
            app.terminate()


def framed(page: Page, address: str, site: str) -> None:
    """Open a page of a website that shows the Space in a frame."""

    def serve(route: Route) -> None:
        route.fulfill(response=route.fetch(url=route.request.url.replace(ADDRESS, address)))

    state = {"id": "me/demo", "runtime": {"stage": "RUNNING"}}
    page.route(f"{ADDRESS}/**", serve)
    page.route(f"{site}/**", lambda route: route.fulfill(content_type="text/html", body=FRAME))
    page.route(
        "https://huggingface.co/api/**",
        lambda route: route.fulfill(json=state, headers={"access-control-allow-origin": "*"}),
    )
    page.goto(f"{site}/spaces/me/demo")


def test_space_shows_results_in_a_frame_of_the_hub_only(
    running_space: str, space: Path, browser: Browser
) -> None:
    cached = {path.name for path in (space / "home" / "codes").iterdir()}
    with fresh_page(browser, running_space) as page:
        framed(page, running_space, "https://huggingface.co")
        shown = page.frame_locator("iframe")
        tiles = shown.locator(".sv-columns > .sv-grid > .sv-tile")
        expect(tiles).to_have_count(24)
        assert tiles.first.locator("img").evaluate("image => image.decode().then(() => true)")
        assert shown.get_by_role("tab", name="Train").count() == 0
    with (
        fresh_page(browser, running_space) as page,
        page.expect_event("requestfailed") as refused,
    ):
        framed(page, running_space, "https://other.example")
    assert refused.value.url.startswith(ADDRESS)
    policy = httpx.get(running_space).headers["content-security-policy"]
    assert f"connect-src 'self' {ADDRESS} data: blob: https://huggingface.co;" in policy
    answer = httpx.post(f"{running_space}/gradio_api/upload", files={"files": b"x"})
    assert answer.status_code == 403 and "open to the public" in answer.text
    assert {path.name for path in (space / "home" / "codes").iterdir()} == cached
    assert (space / "sieve" / "__pycache__").is_dir()  # the copy of Sieve is what runs


def test_space_that_cannot_work_is_refused_in_one_line(
    sieve: Sieve,
    lite_collection: Collection,
    tiny_collection: Collection,
    tiny_checkpoint: Checkpoint,
    tmp_path: Path,
) -> None:
    target, lite, tiny = tmp_path / "target", lite_collection.path, tiny_checkpoint.path
    for arguments, expected in (
        (("scenes", lite), "is not stated; give --licence LICENCE or --no-images"),
        ((tiny, tiny_collection.path), "a path on this machine, which a Space cannot open"),
        ((tiny, lite), "my <b>photos</b> was made with backbone sieve-lite"),
        (("none", lite), "there is no checkpoint 'none'"),
        (("scenes", "none"), "there is no collection 'none'"),
    ):
        assert expected in fault(sieve("space", target, *arguments))
        assert not list(tmp_path.glob("*target*"))
    target.mkdir()
    taken = fault(sieve("space", target, "scenes", lite, "--no-images"))
    assert taken == f"{target} exists already; choose another DIR or remove it first"
    inside = lite / "items.parquet" / "space"
    assert "items.parquet: File exists" in fault(
        sieve("space", inside, "scenes", lite, "--no-images")
    )
