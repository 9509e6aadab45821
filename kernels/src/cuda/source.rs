//! The CUDA C++ sources, embedded, so that a compiler needs no folder of them.

/// A source of `kernels/cuda`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    RelAttentionV0,
    RelAttentionSums,
    RelAttentionV1,
    RelAttentionV1Grad,
    AdamW,
    Embedding,
    Head,
}

/// Headers that sources include, by the name they include them with.
pub const HEADERS: [(&str, &str); 3] = [
    ("device.cuh", include_str!("../../cuda/device.cuh")),
    ("tile.cuh", include_str!("../../cuda/tile.cuh")),
    ("vector.cuh", include_str!("../../cuda/vector.cuh")),
];

impl Source {
    pub const ALL: [Source; 7] = [
        Source::RelAttentionV0,
        Source::RelAttentionSums,
        Source::RelAttentionV1,
        Source::RelAttentionV1Grad,
        Source::AdamW,
        Source::Embedding,
        Source::Head,
    ];

    pub fn file(self) -> &'static str {
        match self {
            Source::RelAttentionV0 => "rel_attention_v0.cu",
            Source::RelAttentionSums => "rel_attention_sums.cu",
            Source::RelAttentionV1 => "rel_attention_v1.cu",
            Source::RelAttentionV1Grad => "rel_attention_v1_grad.cu",
            Source::AdamW => "adamw.cu",
            Source::Embedding => "embedding.cu",
            Source::Head => "head.cu",
        }
    }

    pub fn text(self) -> &'static str {
        match self {
            Source::RelAttentionV0 => include_str!("../../cuda/rel_attention_v0.cu"),
            Source::RelAttentionSums => include_str!("../../cuda/rel_attention_sums.cu"),
            Source::RelAttentionV1 => include_str!("../../cuda/rel_attention_v1.cu"),
            Source::RelAttentionV1Grad => include_str!("../../cuda/rel_attention_v1_grad.cu"),
            Source::AdamW => include_str!("../../cuda/adamw.cu"),
            Source::Embedding => include_str!("../../cuda/embedding.cu"),
            Source::Head => include_str!("../../cuda/head.cu"),
        }
    }
}
