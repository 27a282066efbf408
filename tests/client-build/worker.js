// As the client's encryption does: a module of WebAssembly in a worker.
WebAssembly.compileStreaming(fetch("/empty.wasm")).then(() => postMessage("compiled"), error => postMessage(String(error)));
