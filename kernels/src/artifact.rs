//! A compiled model on disk.
