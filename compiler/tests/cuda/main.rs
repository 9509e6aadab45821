//! Hand-written CUDA kernels, run on the CPU and compared with the interpreter.

mod attention;
mod rest;
mod shim;
mod simt;
mod table;
mod unfused;
