// The graph in ONNX Runtime Web.
import { PageError } from "./errors.js";

/** A loaded graph; `run` takes an RGB picture and its superpixels and gives the outputs by name. */
export class Network {
  /**
   * @param {object} ort the module of ONNX Runtime Web
   * @param {Uint8Array} graph the .onnx file
   * @param {object} info its export record
   * @param {"wasm"|"webgpu"} provider
   */
  static async create(ort, graph, info, provider) {
    let session;
    try {
      session = await ort.InferenceSession.create(graph, { executionProviders: [provider], logSeverityLevel: 3 });
    } catch (error) {
      throw new PageError(`ONNX Runtime cannot load the graph: ${reason(error)}`);
    }
    const wanted = ["image", ...info.outputs], has = [...session.inputNames, ...session.outputNames];
    if (!wanted.every(name => has.includes(name))) {
      throw new PageError(`The file describes another graph than it holds: that one has ${has.join(", ")}.`);
    }
    return new Network(ort, session, info);
  }

  constructor(ort, session, info) {
    Object.assign(this, { ort, session, info });
  }

  async run(rgb, superpixels) {
    const { height, width } = this.info, { Tensor } = this.ort;
    const feed = {
      image: new Tensor("uint8", rgb, [1, height, width, 3]),
      superpixels: new Tensor("int32", superpixels, [1, height, width]),
    };
    let found;
    try {
      found = await this.session.run(Object.fromEntries(this.session.inputNames.map(name => [name, feed[name]])));
    } catch (error) {
      throw new PageError(`ONNX Runtime stopped: ${reason(error)}`);
    }
    const outputs = {};
    for (const [name, tensor] of Object.entries(found)) {
      outputs[name] = tensor.data.slice();
      tensor.dispose();
    }
    return outputs;
  }

  async close() { await this.session.release(); }
}

/** The module of ONNX Runtime Web, ready for one provider. */
export async function loadRuntime(address, binary, threads) {
  const ort = await import(address);
  ort.env.wasm.wasmBinary = binary;
  ort.env.wasm.numThreads = threads;
  ort.env.logLevel = "error";
  return ort;
}

const reason = error => String(error?.message ?? error).split("ERROR_MESSAGE: ").at(-1).split("\n")[0].slice(0, 240);
