"""From a trained model to the module that is exported: same numbers, inference only, static operators.

`lower` reads a model of `cast_sdk.models` and builds a module `f(image, superpixels) -> tuple` whose forward pass is
the graph: pixels in, composed labels out. What changes, each exact in float32:

    normalisation inside, its scale folded into the first convolution        folding.fold_normalisation
    BatchNorm folded into convolutions, heads and the fusion                 folding.fold_batchnorm_*
    the stem's last 1x1 convolution behind the segment mean                  tokens.Tokens
    segment means and resizes as dense products                              segments
    query scale folded into qkv                                              folding.fold_query_scale
    batch folded away at batch 1                                             ranks
    sampling from one distance matrix, three operators a step                sampling
    unused MLP of the last pooling dropped, fusion projected per level       blocks
"""

from __future__ import annotations

from torch import Tensor, nn

from cast_sdk.export.lowering.baselines import LoweredTome, LoweredVit
from cast_sdk.export.lowering.blocks import (
    lower_layers,
)
from cast_sdk.export.lowering.cast import LoweredCast, LoweredDecoder
from cast_sdk.export.lowering.options import GraphOptions, foreign_model, input_names, output_names, spec_of
from cast_sdk.models.baselines import Tome, Vit
from cast_sdk.models.cast import Cast
from cast_sdk.models.dense import Segmenter, Spml
from cast_sdk.spec import ModelSpec


class Lowered(nn.Module):
    """What is exported: `f(image)` or `f(image, superpixels)` gives a tuple in the order of `output_names`.

    For CPUs (`GraphOptions.target`) `f(image, assignment, positions)`, see `segments.GivenAssignment`.

    Attributes:
        spec: the model's description at this input size.
        options: what the graph is specialised for.
        input_names, output_names: names of the graph. The last outputs, `sampled1..4`, are for verification.
    """

    def __init__(self, body: nn.Module, spec: ModelSpec, options: GraphOptions) -> None:
        super().__init__()
        self.body, self.spec, self.options = body, spec, options
        self.input_names = input_names(spec, options)
        self.output_names = output_names(spec, options)
        self.eval()
        self.requires_grad_(False)

    @property
    def shipped_names(self) -> list[str]:
        """The outputs that are exported: all but those for verification."""
        return [name for name in self.output_names if not name.startswith("sampled")]

    def forward(self, image: Tensor, *superpixels: Tensor) -> tuple[Tensor, ...]:
        """image uint8 [B,H,W,3] RGB; superpixels int32 [B,H,W], for CPUs two matrices float32 [B,S,cells]."""
        outputs = self.body(image, *(x.squeeze(0) if self.options.squeeze else x for x in superpixels))
        return tuple(self._batched(name, outputs[name]) for name in self.output_names)

    def _batched(self, name: str, value: Tensor) -> Tensor:
        if name == "embedding" or name.startswith("logits"):  # [..., 1, n]: at batch 1 the row is the batch
            return value if self.options.squeeze else value.squeeze(-2)
        return value.unsqueeze(0) if self.options.squeeze else value


class Shipped(nn.Module):
    """A lowered module without the outputs that only its verification needs, nor those that begin with `without`."""

    def __init__(self, lowered: Lowered, without: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.lowered, self.options, self.input_names = lowered, lowered.options, lowered.input_names
        self.output_names = [name for name in lowered.shipped_names if not name.startswith(without)]
        self._places = [lowered.shipped_names.index(name) for name in self.output_names]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        outputs = self.lowered(*inputs)
        return tuple(outputs[place] for place in self._places)


def lower(model: nn.Module, options: GraphOptions, spec: ModelSpec | None = None) -> Lowered:
    """The inference module of a trained model.

    Args:
        model: from `create_model` or `load_model`; it is read and not changed.
        options: see `graph_options`.
        spec: the description to carry, when it differs from the model's own.
    """
    own = spec_of(model)
    body: nn.Module
    if isinstance(model, Vit):
        body = LoweredVit(model, options)
    elif isinstance(model, Tome):
        body = LoweredTome(model, options)
    elif isinstance(model, Segmenter):
        body = LoweredCast(model.encoder, own, options, LoweredDecoder(model.decoder, options.dtype))
    elif isinstance(model, Spml):
        classifier = model.semantic_classifier
        body = LoweredCast(model.vit_backbone, own, options, lower_layers(list(classifier)) if classifier else None)
    elif isinstance(model, Cast):
        body = LoweredCast(model, own, options)
    else:
        raise foreign_model(model)
    return Lowered(body, spec or own, options)
