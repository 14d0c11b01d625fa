//! Networks by ONNX Runtime, loaded at run time as a shared library.
