"""What a person does with the page, in real headless Chromium."""

from __future__ import annotations

import io
import shutil
import zlib
from pathlib import Path

import cv2
import onnx
import pytest
from browser import check_on_a_phone, chromium, wait
from photographs import PHOTOS
from PIL import Image
from test_photographs import differences
from web_tools import (
    ISOLATION,
    choose,
    clear_toast,
    data,
    open_page,
    problems,
    save_json,
    segment,
    static_server,
    text,
    toast,
)

from cast_sdk import Runtime
from cast_sdk.bundled import path as bundled
from cast_sdk.export.web.assemble import write_single_file

CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


@pytest.fixture
def page(desktop, server):
    """The page with its first sample segmented."""
    if desktop.current_url != server.url:
        open_page(desktop, server.url)
    clear_toast(desktop)
    return desktop


def pixels(page) -> int:
    """Checksum of what the canvas shows once it is painted."""
    wait(lambda: data(page, "painting") is None)
    return zlib.crc32(page.execute_script("return document.getElementById('view').toDataURL()").encode())


def slide(page, name: str, value: int) -> None:
    script = (
        "const s = document.getElementById(arguments[0]); s.value = arguments[1]; s.dispatchEvent(new Event('input'))"
    )
    page.execute_script(script, name, value)


def press_key(page, key: str) -> None:
    page.execute_script("dispatchEvent(new KeyboardEvent('keydown', {key: arguments[0]}))", key)


def expected(photograph: Path) -> dict:
    return Runtime(threads=1).segment(photograph).to_dict()


def test_it_starts_with_a_sample_and_its_policy_holds(page, server):
    assert data(page, "ready") == "1" and f"{Runtime().spec.num_classes} classes" in text(page, "title")
    assert text(page, "best").endswith(("%", "unsure")) and text(page, "state").strip() == "ready"
    assert {"preprocess", "superpixels", "model", "total"} <= set(
        text(page, "legend").replace(" ms", " ").split()
    ) or all(stage in text(page, "legend") for stage in ("preprocess", "superpixels", "model", "total"))
    assert problems(page) == []
    folder = {name.split("?")[0] for name in server.asked}
    assert all("." in name or name == "/" for name in folder), "only files of the folder were asked for"
    # What the page may not do, it cannot: neither in its own thread nor in a worker that it makes.
    reach = """const done = arguments[1], told = "then(() => postMessage('sent'), () => postMessage('refused'))";
        const text = `fetch('${arguments[0]}').${told}`;
        fetch(arguments[0]).then(() => done('sent'), () => {
          const worker = new Worker(URL.createObjectURL(new Blob([text])));
          worker.onmessage = event => done(event.data);
        });"""
    other = server.url.replace("127.0.0.1", "localhost")
    before = len(server.asked)
    assert page.execute_async_script(reach, other) == "refused"
    assert len(server.asked) == before
    assert len(problems(page)) >= 2, "and the browser says so"


def test_level_overlay_and_boundaries(page):
    slide(page, "opacity", 45)
    seen = set()
    for level in range(5):
        press_key(page, str(level))
        assert data(page, "level") == str(level)
        seen.add(pixels(page))
    assert len(seen) == 5
    assert text(page, "levelName").startswith("4 of 4 · ")
    slide(page, "level", 2)
    before = pixels(page)
    press_key(page, "b")
    assert pixels(page) != before
    press_key(page, "b")
    assert pixels(page) == before
    slide(page, "opacity", 0)
    assert pixels(page) != before
    slide(page, "opacity", 45)


def test_pointing_shows_a_segment_and_its_ancestors(page):
    from selenium.webdriver import ActionChains

    slide(page, "level", 1)
    before = pixels(page)
    ActionChains(page).move_to_element_with_offset(page.find_element("id", "view"), 20, -30).perform()
    wait(lambda: len(page.find_elements("css selector", "#tree .node")) == 5)
    nodes = [node.text.replace("\n", " ") for node in page.find_elements("css selector", "#tree .node")]
    assert nodes[0].startswith("Level 4, segment") and nodes[-1].startswith("Superpixel ")
    shares = [float(node.split()[-2]) for node in nodes]
    assert shares == sorted(shares, reverse=True) and pixels(page) != before


def test_samples_pictures_and_json_are_saved(page):
    page.find_elements("css selector", "#gallery button")[1].click()
    wait(lambda: data(page, "photo") == "coffee")
    found = save_json(page, page.downloads)
    photo = bundled("cast_tiny.onnx").parent / "photos" / "coffee.jpg"
    assert differences(found, expected(photo)) == []
    page.find_element("id", "shot").click()
    picture = wait(lambda: next(page.downloads.glob("cast-*.png"), None))
    assert wait(lambda: cv2.imread(str(picture)) is not None) and cv2.imread(str(picture)).shape == (960, 960, 3)


def test_photographs_are_dropped_and_pasted(page):
    event = """const t = new DataTransfer(), done = arguments[1], kind = arguments[0];
        fetch('samples/rocket.jpg').then(r => r.blob()).then(b => {
          t.items.add(new File([b], kind + '.jpg', {type: 'image/jpeg'}));
          const options = {bubbles: true, cancelable: true};
          dispatchEvent(kind === 'drop' ? new DragEvent('drop', {dataTransfer: t, ...options})
            : new ClipboardEvent('paste', {clipboardData: t, ...options}));
          done();
        })"""
    for kind in ("drop", "paste"):
        page.execute_async_script(event, kind)
        wait(lambda kind=kind: data(page, "photo") == f"{kind}.jpg")
    names = [b.get_attribute("aria-label") for b in page.find_elements("css selector", "#gallery button")]
    assert names[:2] == ["Segment paste.jpg", "Segment drop.jpg"]


def test_files_that_are_no_photographs_get_a_sentence(page, tmp_path):
    jpeg = (PHOTOS / "cat.jpg").read_bytes()
    png = io.BytesIO()
    Image.new("RGB", (8, 8)).save(png, "PNG")
    huge = png.getvalue()[:16] + (60000).to_bytes(4, "big") * 2 + png.getvalue()[24:]
    cases = {
        "page.html": (b"<!doctype html><p>no", "JPEG, PNG or WebP"),
        "empty.jpg": (b"", "JPEG, PNG or WebP"),
        "head.jpg": (jpeg[:150], "JPEG, PNG or WebP"),
        "cut.png": (png.getvalue()[:40], "damaged"),
        "huge.png": (huge, "50 megapixels, not 60000 x 60000"),
    }
    for name, (content, sentence) in cases.items():
        (tmp_path / name).write_bytes(content)
        clear_toast(page)
        choose(page, tmp_path / name)
        wait(lambda: toast(page))
        assert sentence in toast(page), (name, toast(page))
    found = segment(page, PHOTOS / "cat.jpg", page.downloads)
    assert differences(found, expected(PHOTOS / "cat.jpg")) == []


def test_everything_has_a_name(page):
    """What a screen reader says: every control that Chromium's accessibility tree holds has a name."""
    nodes = page.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    controls = {"button", "slider", "checkbox", "link", "image", "img", "progressbar", "ProgressIndicator", "Canvas"}
    found = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node["ignored"] and node["role"]["value"] in controls
    ]
    assert len(found) >= 12 and [role for role, name in found if not name] == [], found
    sliders = [name.split()[0] for role, name in found if role == "slider"]
    assert sliders == ["Level", "Overlay"]


def test_threads_where_the_host_isolates_the_page(desktop, site):
    with static_server(site, ISOLATION) as isolated:
        open_page(desktop, isolated.url)
        assert int(data(desktop, "ready")) > 1 or desktop.execute_script("return navigator.hardwareConcurrency") == 1
        assert desktop.execute_script("return crossOriginIsolated")
        found = segment(desktop, PHOTOS / "rocket.jpg", desktop.downloads)
        assert differences(found, expected(PHOTOS / "rocket.jpg")) == []
        assert problems(desktop) == []


def test_the_single_file_from_disk(desktop, site, tmp_path):
    file = write_single_file(bundled("cast_tiny.onnx"), tmp_path / "page.html", runtime=site)
    open_page(desktop, file.as_uri())
    assert data(desktop, "failed") is None
    found = segment(desktop, PHOTOS / "coffee.jpg", desktop.downloads)
    assert differences(found, expected(PHOTOS / "coffee.jpg")) == []
    loaded = desktop.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert all(name.startswith(("blob:", "data:")) for name in loaded)
    assert problems(desktop) == []


def without_description(site: Path) -> bytes:
    graph = onnx.load(site / "model.onnx")
    graph.ClearField("metadata_props")
    return graph.SerializeToString()


def with_another_graph(site: Path) -> bytes:
    """Our description over a graph that does something else."""
    graph = onnx.load(site / "model.onnx")
    relu = onnx.helper.make_node("Relu", ["x"], ["y"])
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    opset = [onnx.helper.make_opsetid("", 20)]
    other = onnx.helper.make_model(
        onnx.helper.make_graph([relu], "other", values[:1], values[1:]), ir_version=10, opset_imports=opset
    )
    other.metadata_props.extend(graph.metadata_props)
    return other.SerializeToString()


@pytest.mark.parametrize(
    ("name", "make", "sentence"),
    [
        ("model.onnx", without_description, "not exported by cast_sdk"),
        ("model.onnx", lambda site: (site / "model.onnx").read_bytes()[:2_000_000], "damaged"),
        ("model.onnx", with_another_graph, "another graph"),
        ("model.onnx", lambda site: None, "model.onnx is missing"),
        ("kernel.wasm", lambda site: b"no", "This failed"),
    ],
)
def test_a_page_that_cannot_run_says_why(desktop, site, tmp_path, name, make, sentence):
    broken = tmp_path / "broken"
    shutil.copytree(site, broken)
    content = make(site)
    (broken / name).unlink()
    if content is not None:
        (broken / name).write_bytes(content)
    with static_server(broken) as host:
        open_page(desktop, host.url)
        why = data(desktop, "failed")
        assert why and sentence in why, why
        assert "The page cannot run" in text(desktop, "note") and "stopped" in text(desktop, "state")


def test_the_camera(server, tmp_path):
    with chromium(tmp_path, flags=CAMERA) as browser:
        open_page(browser, server.url)
        press_key(browser, "c")
        wait(lambda: int(data(browser, "frames")) > 8)
        assert "live" in text(browser, "state") and "fps" in text(browser, "rate")
        assert browser.execute_script("const v = document.getElementById('view'); return v.width / v.height") == 4 / 3
        press_key(browser, " ")
        assert text(browser, "pause") == "Resume"
        found = save_json(browser, tmp_path / "downloads")
        assert found["size"] == [480, 640] and found["source"] == "camera" and len(found["levels"]) == 5
        labels = [level["num_segments"] for level in found["levels"]]
        assert labels == sorted(labels, reverse=True)
        press_key(browser, " ")
        count = int(data(browser, "frames"))
        wait(lambda: int(data(browser, "frames")) > count + 3)
        browser.find_elements("css selector", "#gallery button")[2].click()
        wait(lambda: data(browser, "photo") == "rocket")
        assert text(browser, "camera") == "Camera" and "ready" in text(browser, "state")
        assert problems(browser) == []


def test_no_camera_is_told(desktop, server):
    open_page(desktop, server.url)
    desktop.find_element("id", "camera").click()
    wait(lambda: toast(desktop))
    assert "camera" in toast(desktop).lower()


def test_on_a_phone(server, tmp_path):
    with chromium(tmp_path, phone=True) as phone:
        open_page(phone, server.url)
        check_on_a_phone(phone)
        assert problems(phone) == []
