// Graphs in ONNX files, by onnxruntime from this site.

const RUNTIME = "ort.wasm.bundle.min.mjs", BINARY = "ort-wasm-simd-threaded.wasm";

/** Graphs of a folder by name, and a function that makes their inputs; the runtime is in the folder beside it. */
export async function loadGraphs(folder, names) {
  const runtime = new URL("../runtime/", folder), ort = await import(new URL(RUNTIME, runtime));
  Object.assign(ort.env.wasm, { numThreads: 1, wasmPaths: { wasm: String(new URL(BINARY, runtime)) } });
  const tensor = (values, shape) =>
    new ort.Tensor(values instanceof BigInt64Array ? "int64" : "float32", values, shape), found = { tensor };
  for (const name of names) found[name] = await ort.InferenceSession.create(String(new URL(`${name}.onnx`, folder)));
  return found;
}
