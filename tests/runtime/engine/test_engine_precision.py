"""Reading the precision of an engine from its layer list. The samples are lines of real builds, shortened."""

from __future__ import annotations

import pytest

from cast_sdk.errors import ExportError
from cast_sdk.runtime.engine.precision import Readback, check_precision, read_layers

RTX_17 = """Layers:
Name: __myl_CastMul_myl0_0, LayerType: kgen, Inputs: [ { Name: image, Dimensions: [1,224,224,3], Strides: [150528,672,3,1], StrideOrder: [3,2,1,0], Datatype: UInt8, Format: (Linear) Row major linear format }], Constants: [ { Name: __mye14_myl0, Dimensions: [1], Strides: [1], StrideOrder: [0], Datatype: Float, Format: (Linear) Row major linear format }], Outputs: [ { Name: c.1_myl0, Dimensions: [1,224,224,3], Strides: [1], StrideOrder: [0], Datatype: Half, Format: (Linear) Row major linear format }], TacticName: __myl_CastMul, StreamId: 0, Metadata: [ONNX Layer: /Cast]
Name: qkv_myl0_3, LayerType: gemm, Inputs: [ { Name: x, Dimensions: [1,197,384], Strides: [75648,384,1], StrideOrder: [2,1,0], Datatype: Half, Format: (Linear) Row major linear format }], Constants: [ { Name: w0, Dimensions: [1,384,1152], Strides: [442368,1152,1], StrideOrder: [2,1,0], Datatype: Half, Format: (Linear) Row major linear format }, { Name: alpha, Dimensions: [1], Strides: [1], StrideOrder: [0], Datatype: Float, Format: (Linear) Row major linear format }], Outputs: [ { Name: y, Dimensions: [1,197,1152], Strides: [1], StrideOrder: [0], Datatype: Half, Format: (Linear) Row major linear format }], TacticName: __myelin_CASK_STUB, StreamId: 0
Name: again_myl0_4, LayerType: gemm, Inputs: [ { Name: x, Dimensions: [1,197,384], Strides: [1], StrideOrder: [0], Datatype: Float, Format: (Linear) Row major linear format }], Constants: [ { Name: w0, Dimensions: [1,384,1152], Strides: [1], StrideOrder: [0], Datatype: Half, Format: (Linear) Row major linear format }, { Name: table, Dimensions: [64], Strides: [1], StrideOrder: [0], Datatype: Int32, Format: (Linear) Row major linear format }], Outputs: [ { Name: y, Dimensions: [1,197,1152], Strides: [1], StrideOrder: [0], Datatype: Half, Format: (Linear) Row major linear format }], TacticName: __myelin_CASK_STUB, StreamId: 0

I/O Tensors:
 Name: image, IOMode: Input, DataType: UInt8, Dimensions: [1,224,224,3], Location: Device
"""  # noqa: E501
RTX_14 = """Layers:
Name: /patch_embed/proj/Conv_myl0_1, LayerType: correlation, Inputs: [ { Name: p, Dimensions: [1,3,224,224], Format/Datatype: Float }], Outputs: [ { Name: q, Dimensions: [1,384,14,14], Format/Datatype: Float }], TacticName: __myelin_CASK_STUB, StreamId: 0, Metadata: [ONNX Layer: /patch_embed/proj/Conv]
Name: qkv_myl0_3, LayerType: gemm, Inputs: [ { Name: x, Dimensions: [1,197,384], Format/Datatype: Half }], Outputs: [ { Name: y, Dimensions: [1,197,1152], Format/Datatype: Half }], TacticName: __myelin_CASK_STUB, StreamId: 0
Name: mlp_myl0_4, LayerType: gemm, Inputs: [ { Name: x, Dimensions: [1,197,384], Format/Datatype: Half }, { Name: w, Dimensions: [384,8], Format/Datatype: Int8 }], Outputs: [ { Name: y, Dimensions: [1,197,8], Format/Datatype: Half }], TacticName: __myelin_CASK_STUB, StreamId: 0
"""  # noqa: E501
TRT_10 = """Layers:
Name: /features/0/Conv + /features/1/Relu, LayerType: CaskConvolution, Inputs: [ { Name: a, Location: Device, Dimensions: [1,3,224,224], Format/Datatype: Channel major FP16 format where channel % 8 == 0 }], Outputs: [ { Name: b, Dimensions: [1,64,55,55], Format/Datatype: Half }], ParameterType: Convolution, Weights: {"Type": "Half", "Count": 23232}, Bias: {"Type": "Half", "Count": 64}, TacticName: sm80_xmma, StreamId: 0
Name: fc_myl9_4, LayerType: gemm, Inputs: [ { Name: x, Dimensions: [1,4096], Format/Datatype: Half }, { Name: __mye595_dconst, Dimensions: [4096,1000], Format/Datatype: Half }, { Name: __mye574_alpha, Dimensions: [1], Format/Datatype: Float }], Outputs: [ { Name: output, Dimensions: [1,1000], Format/Datatype: Half }], TacticName: sm50_xmma, StreamId: 0
"""  # noqa: E501


def test_the_form_with_constants_counts_each_weight_once_and_no_tables():
    found = read_layers(RTX_17)
    assert dict(found.weights) == {"fp16": 384 * 1152, "fp32": 2}
    assert dict(found.products) == {"fp16": 1, "fp32": 1}
    check_precision("fp16", found)


def test_the_older_form_counts_products_and_weight_only_int8():
    found = read_layers(RTX_14)
    assert not found.weights and dict(found.products) == {"fp32": 1, "fp16": 1, "int8": 1}
    assert found.share("int8") == pytest.approx(1 / 3)
    check_precision("int8", found)


def test_the_form_of_tensorrt_10_has_folded_constants_and_convolution_weights():
    found = read_layers(TRT_10)
    assert dict(found.weights) == {"fp16": 23232 + 4096 * 1000}
    check_precision("fp16", found)


def test_a_few_listed_weights_do_not_speak_for_an_engine():
    found = read_layers(TRT_10.replace("__mye595_dconst", "folded"))
    found.expected = 1_000_000
    assert found.weights["fp16"] == 23232 and not found.conclusive
    assert dict(found.counts) == dict(found.products) and found.share("fp16") == 1
    found.expected = 40_000
    assert found.conclusive and found.counts is found.weights


def test_tensors_whose_place_is_printed_are_read():
    line = RTX_14.replace("{ Name: x, Dimensions", "{ Name: x, Location: Device, Dimensions")
    assert read_layers(line).products == read_layers(RTX_14).products


@pytest.mark.parametrize(
    "asked, weights, found",
    [
        ("fp16", {"fp32": 9}, "fp32 100.0%"),
        ("fp16", {"fp32": 6, "fp16": 4}, "fp32 60.0%, fp16 40.0%"),
        ("int8", {"fp32": 8, "int8": 2}, "fp32 80.0%, int8 20.0%"),
        ("fp32", {"fp32": 999, "fp16": 1}, "fp32 99.9%, fp16 0.1%"),
        ("fp32", {}, "without types"),
    ],
)
def test_another_precision_is_an_error(asked, weights, found):
    readback = Readback("layers")
    readback.weights.update(weights)
    with pytest.raises(ExportError, match=f"asked for, {asked}.\n  Found: .*{found}"):
        check_precision(asked, readback)


def test_a_list_without_layers_says_nothing():
    assert not read_layers("Layers:\n[layer names only]\n")
