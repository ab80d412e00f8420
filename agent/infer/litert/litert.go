// Package litert binds the CompiledModel C API of libLiteRt.so, CPU only, without
// cgo: exactly what a worker process with one model needs. It is for the worker
// alone, because the native side can end the process at any time.
//
// What the native side asks for and this package keeps:
//   - models are created from a memory buffer only, the one path that verifies the
//     FlatBuffer, and the buffer stays mapped as long as the model;
//   - tensor memory is page aligned and keeps its address;
//   - one Run at a time per Compiled, from one thread.
package litert
