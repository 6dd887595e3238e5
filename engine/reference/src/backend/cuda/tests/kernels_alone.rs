//! Kernels by themselves.
