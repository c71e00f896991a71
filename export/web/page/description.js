// The description in an .onnx file: ModelSpec and export record, from the file's bytes alone.
import { PageError } from "./errors.js";

// onnx.proto: ModelProto.metadata_props is field 14, StringStringEntryProto has key = 1 and value = 2.
const METADATA_PROPS = 14, VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5;

/**
 * ModelSpec and export record of a graph of ours.
 * @param {Uint8Array} bytes the .onnx file
 * @returns {{spec: object, info: object}}
 */
export function readDescription(bytes) {
  const metadata = readMetadata(bytes);
  if (!metadata.cast_sdk || !metadata.cast_sdk_export) {
    throw new PageError("The graph was not exported by cast_sdk: it carries no description of its model.");
  }
  let spec, info;
  try {
    spec = JSON.parse(metadata.cast_sdk);
    info = JSON.parse(metadata.cast_sdk_export);
  } catch {
    throw new PageError("The description of the model inside the graph is damaged. Export it again.");
  }
  check(spec, info);
  return { spec, info };
}

function check(spec, info) {
  if (spec.schema_version !== 1) throw new PageError(`This page reads model descriptions of schema 1, not ${spec.schema_version}.`);
  const numbered = name => (spec.clusters || []).map((_, i) => `${name}${i + 1}`), levels = numbered("level");
  const missing = names => names.filter(name => !(info.outputs || []).includes(name));
  if (missing(["embedding", "logits", ...levels]).length || !levels.length || !spec.num_classes || !spec.superpixels) {
    throw new PageError(`The page runs models that classify and group superpixels; ${spec.name} does not.`);
  }
  const grouping = spec.grouping ?? "assigned";  // older descriptions do not say it
  if (!["assigned", "merged"].includes(grouping)) {
    throw new PageError(`This page makes levels that are assigned or merged, not ${grouping}.`);
  }
  const assignments = grouping === "merged" ? missing(numbered("assignment")) : [];
  if (assignments.length) {
    throw new PageError(`The levels of ${spec.name} cannot be merged: its graph has no ${assignments.join(", ")}. Export it again.`);
  }
  if (info.batch !== 1 && info.batch !== null) throw new PageError(`The page runs graphs for one image at a time, not ${info.batch}.`);
}

function readMetadata(bytes) {
  const metadata = {}, text = new TextDecoder();
  try {
    for (const [field, value] of fields(bytes)) {
      if (field !== METADATA_PROPS) continue;
      const entry = new Map(fields(value));
      metadata[text.decode(entry.get(1))] = text.decode(entry.get(2));
    }
  } catch (error) {
    if (error instanceof RangeError) throw new PageError("The graph is damaged or no .onnx file.");
    throw error;
  }
  return metadata;
}

// Field numbers and contents (length-delimited fields only) of a protobuf message.
function* fields(bytes) {
  let at = 0;
  const varint = () => {
    let value = 0, scale = 1;
    for (let k = 0; k < 10; k++, scale *= 128) {
      if (at >= bytes.length) throw new RangeError("the message ends inside a field");
      const byte = bytes[at++];
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
    throw new RangeError("an integer of more than 64 bits");
  };
  while (at < bytes.length) {
    const tag = varint(), wire = tag % 8, field = Math.floor(tag / 8);
    if (field === 0) throw new RangeError("field number 0");
    if (wire === VARINT) varint();
    else if (wire === FIXED64) at += 8;
    else if (wire === FIXED32) at += 4;
    else if (wire === BYTES) {
      const length = varint();
      if (at + length > bytes.length) throw new RangeError("a field ends after the file");
      yield [field, bytes.subarray(at, at + length)];
      at += length;
    } else throw new RangeError(`wire type ${wire}`);
  }
}
