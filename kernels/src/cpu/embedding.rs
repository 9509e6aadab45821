//! Embedding gather and its deterministic scatter-add gradient.
