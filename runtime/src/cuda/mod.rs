//! NVIDIA GPUs, through the CUDA driver of the machine. The driver is looked for when a GPU is asked for: a program with this in
//! it starts where there is none.

pub mod gpus;
