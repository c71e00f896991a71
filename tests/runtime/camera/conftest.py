"""One live view for the tests of a file, and one behind a token. The camera never notices what its clients do."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def camera():
    from live_view import Camera

    camera = Camera(title="test://")
    yield camera
    camera.close()


@pytest.fixture(scope="module")
def locked():
    from live_view import TOKEN, Camera

    camera = Camera(token=TOKEN)
    yield camera
    camera.close()


@pytest.fixture(autouse=True)
def the_camera_goes_on(request):
    yield
    for name in ("camera", "locked"):
        if name in request.fixturenames:
            assert request.getfixturevalue(name).runs()
