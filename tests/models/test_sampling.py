"""Our farthest-point sampling against DGL's own, on tokens of real photographs."""

import pytest
import torch
from golden_tools import draw_weights, inputs, normalised

from cast_sdk.errors import InputError, MissingDependencyError
from cast_sdk.models import create_model
from cast_sdk.models.sampling import farthest_points


@pytest.fixture(scope="module")
def model():
    model = create_model("cast_small", embed_dim=96, depths=(2, 1, 1, 1))
    draw_weights(model)
    return model.eval()


@pytest.fixture(scope="module")
def real_points(model):
    """What the first pooling samples from: [8, 197, 96], the mean first."""
    images, labels = normalised(inputs()["im224"][:8]), torch.from_numpy(inputs()["seg224"][:8].astype(int))
    with torch.no_grad():
        tokens = model(images, labels).levels[0].tokens
    return torch.cat([tokens.mean(1, keepdim=True), tokens], 1)


def test_equal_to_dgl(real_points):
    pytest.importorskip("dgl", reason="DGL 1.1.3 has wheels for x86-64 and Python 3.8 to 3.11 only")
    for count in (9, 65, 150):
        torch.testing.assert_close(farthest_points(real_points, count, "dgl"), farthest_points(real_points, count))


def test_float32_matrix_picks_the_same(real_points):
    torch.testing.assert_close(farthest_points(real_points, 65, "matrix"), farthest_points(real_points, 65))


def test_a_model_with_dgl_gives_the_same_output(model):
    pytest.importorskip("dgl", reason="DGL 1.1.3 has wheels for x86-64 and Python 3.8 to 3.11 only")
    image, labels = normalised(inputs()["im224"][:1]), torch.from_numpy(inputs()["seg224"][:1].astype(int))
    with torch.no_grad():
        ours = model(image, labels)
        for level in range(1, 5):
            model.pooling(level).sampler = "dgl"
        theirs = model(image, labels)
        for level in range(1, 5):
            model.pooling(level).sampler = "float64"
    for a, b in zip(ours.levels, theirs.levels, strict=True):
        torch.testing.assert_close(a.sampled, b.sampled)
    torch.testing.assert_close(ours.logits, theirs.logits)


def test_missing_dgl_names_the_extra(monkeypatch, real_points):
    monkeypatch.setitem(__import__("sys").modules, "dgl.geometry", None)
    with pytest.raises(MissingDependencyError, match=r"pip install .?dgl"):
        farthest_points(real_points, 3, "dgl")


def test_unknown_sampler(real_points):
    with pytest.raises(InputError, match=r"Unknown sampler .*\n.*'matrix'"):
        farthest_points(real_points, 3, "fast")


def test_alone_and_in_a_batch(model):
    """S belongs to the call, so other images of a batch do not matter."""
    images, labels = normalised(inputs()["im224"][:3]), torch.from_numpy(inputs()["seg224"][:3].astype(int))
    labels[1][labels[1] > 150] = 150  # an image with far fewer superpixels
    with torch.no_grad():
        together = model(images, labels)
        for i in range(3):
            alone = model(images[i : i + 1], labels[i : i + 1])
            torch.testing.assert_close(together.logits[i], alone.logits[0], rtol=1e-4, atol=1e-5)
            for a, b in zip(together.levels, alone.levels, strict=True):
                torch.testing.assert_close(a.labels[i], b.labels[0])


def test_flat_image_is_explained(model):
    with pytest.raises(InputError, match="distinct tokens"):
        model(torch.zeros(1, 3, 224, 224), torch.zeros(1, 224, 224, dtype=torch.long), num_superpixels=70)
