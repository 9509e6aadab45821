//! Families of models: the six published Gopher sizes, and a ladder of nano models made by rule.

use isoflop_compiler::config::ModelConfig;
use isoflop_compiler::count::parameters;
use serde::{Deserialize, Serialize};

/// One size of a family.
#[derive(Clone, Debug, PartialEq)]
pub struct Size {
    /// Unique in its family; part of run ids.
    pub name: String,
    pub model: ModelConfig,
    /// What the family's paper trained this size with; none for sizes of our own.
    pub published: Option<Published>,
}

/// Learning rate and batch of Rae et al. 2021, Table 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Published {
    /// Peak learning rate.
    pub lr: f64,
    pub batch_tokens: u64,
}

/// The families that a sweep file can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FamilyName {
    Gopher,
    Nano,
}

impl FamilyName {
    pub const ALL: [FamilyName; 2] = [FamilyName::Gopher, FamilyName::Nano];

    pub fn name(self) -> &'static str {
        match self {
            FamilyName::Gopher => "gopher",
            FamilyName::Nano => "nano",
        }
    }

    /// Vocabulary where the sweep file gives none: SentencePiece of the paper, or bytes.
    pub fn vocab_size(self) -> usize {
        match self {
            FamilyName::Gopher => 32_000,
            FamilyName::Nano => 256,
        }
    }

    /// Tokens of context where the sweep file gives none.
    pub fn seq_len(self) -> usize {
        match self {
            FamilyName::Gopher => 2_048,
            FamilyName::Nano => 128,
        }
    }

    /// Training tokens a parameter at the expected optimum. About 20 at scale (Hoffmann et al. 2022); our own trial
    /// runs of nano models on bytes, 1e11 to 1e12 FLOPs, have their minima near 100.
    pub fn tokens_per_param(self) -> f64 {
        match self {
            FamilyName::Gopher => 20.0,
            FamilyName::Nano => 100.0,
        }
    }

    /// What its sizes share where the sweep file says nothing else.
    pub fn base(self) -> Base {
        Base {
            vocab_size: self.vocab_size(),
            seq_len: self.seq_len(),
            tied_embeddings: true,
            bias: false,
            rms_eps: 1e-6,
            init_std: 0.02,
        }
    }

    /// All sizes, smallest first. `base` gives everything but the layers, heads and widths.
    pub fn sizes(self, base: &Base) -> Vec<Size> {
        match self {
            FamilyName::Gopher => gopher(base),
            FamilyName::Nano => nano(base),
        }
    }
}

impl FamilyName {
    /// The shape of this family whose parameter count is nearest to `params`. Gopher: heads of 128 (of 64 below a
    /// width of 1,024), widths that are multiples of 256 from 2,048 and of 1,024 from 8,192, and a width of about as many times the layers as the published sizes of that count have.
    /// Nano: by the ladder's rule, at any width that is a multiple of 4.
    pub fn shape_near(self, base: &Base, params: f64, non_embedding: bool) -> ModelConfig {
        let count = |model: &ModelConfig| {
            let counted = parameters(model);
            (if non_embedding { counted.non_embedding() } else { counted.total() }) as f64
        };
        let miss = |model: &ModelConfig| (count(model) / params).ln().abs();
        let shapes = match self {
            FamilyName::Gopher => gopher_shapes(base, params),
            FamilyName::Nano => (2..=128)
                .map(|k| {
                    let (n_layers, n_heads, d_head) = nano_shape(4 * k);
                    base.model(n_layers, n_heads, d_head, 4 * k)
                })
                .filter(|m| m.check().is_ok())
                .collect(),
        };
        // A published size that is as near as half a per cent is preferred to a shape of our own.
        let published = self.sizes(base).into_iter().map(|s| s.model);
        let near = |m: &ModelConfig| miss(m) < 0.005;
        let first = published.clone().find(near);
        let nearest = || shapes.into_iter().min_by(|p, q| miss(p).total_cmp(&miss(q)));
        first.or_else(nearest).unwrap_or_else(|| base.model(8, 16, 32, 512))
    }
}

/// Gopher-like shapes about a parameter count: the ratio of width to layers within 1.3 times of the published trend.
fn gopher_shapes(base: &Base, params: f64) -> Vec<ModelConfig> {
    const ROOM: f64 = 1.3;
    let published: Vec<(f64, f64)> = gopher(base)
        .iter()
        .map(|s| {
            ((parameters(&s.model).weights() as f64).ln(), s.model.d_model as f64 / s.model.n_layers as f64)
        })
        .collect();
    let at = params.ln();
    let above = published.partition_point(|p| p.0 < at).clamp(1, published.len() - 1);
    let (p, q) = (published[above - 1], published[above]);
    let share = ((at - p.0) / (q.0 - p.0)).clamp(0.0, 1.0);
    let ratio = p.1 + share * (q.1 - p.1);
    let mut shapes = Vec::new();
    for k in 1..=1024 {
        let d_model = 64 * k;
        let d_head = if d_model >= 1024 { 128 } else { 64 };
        // Large widths that divide among devices.
        let step = if d_model >= 8192 {
            1024
        } else if d_model >= 2048 {
            256
        } else {
            d_head
        };
        if d_model % step != 0 {
            continue;
        }
        let [least, most] = [1.0 / ROOM, ROOM].map(|r| d_model as f64 / (ratio / r));
        for n_layers in (least.ceil() as usize).max(1)..=(most.floor() as usize).min(400) {
            // 13 L d^2 is close enough to pass over what is far away.
            let rough =
                13.0 * n_layers as f64 * (d_model as f64).powi(2) + (base.vocab_size * d_model) as f64;
            if (0.5..2.0).contains(&(rough / params)) {
                shapes.push(base.model(n_layers, d_model / d_head, d_head, d_model));
            }
        }
    }
    if shapes.is_empty() {
        shapes.extend(gopher(base).into_iter().map(|s| s.model));
    }
    shapes
}

/// What all sizes of a family share.
#[derive(Clone, Debug, PartialEq)]
pub struct Base {
    pub vocab_size: usize,
    pub seq_len: usize,
    pub tied_embeddings: bool,
    pub bias: bool,
    pub rms_eps: f64,
    pub init_std: f64,
}

impl Base {
    /// A model of this base with the Gopher feed-forward of four times `d_model`.
    pub fn model(&self, n_layers: usize, n_heads: usize, d_head: usize, d_model: usize) -> ModelConfig {
        ModelConfig {
            tied_embeddings: self.tied_embeddings,
            bias: self.bias,
            rms_eps: self.rms_eps,
            init_std: self.init_std,
            ..ModelConfig::gopher(n_layers, n_heads, d_head, d_model, self.vocab_size, self.seq_len)
        }
    }
}

/// Rae et al. 2021, Table 1: name, layers, heads, d_head, d_model, peak learning rate, batch in sequences of 2,048
/// tokens. The batches are published as 0.25M, 2M and, for the largest, 3M growing to 6M, of which we take the 3M.
const GOPHER: [(&str, usize, usize, usize, usize, f64, u64); 6] = [
    ("44M", 8, 16, 32, 512, 6e-4, 128),
    ("117M", 12, 12, 64, 768, 6e-4, 128),
    ("417M", 12, 12, 128, 1_536, 2e-4, 128),
    ("1.4B", 24, 16, 128, 2_048, 2e-4, 128),
    ("7.1B", 32, 32, 128, 4_096, 1.2e-4, 1_024),
    ("280B", 80, 128, 128, 16_384, 4e-5, 1_536),
];

fn gopher(base: &Base) -> Vec<Size> {
    GOPHER
        .into_iter()
        .map(|(name, layers, heads, d_head, d_model, lr, sequences)| Size {
            name: name.to_owned(),
            model: base.model(layers, heads, d_head, d_model),
            published: Some(Published { lr, batch_tokens: sequences * 2_048 }),
        })
        .collect()
}

/// Widths of the nano ladder.
const NANO_WIDTHS: [usize; 15] = [16, 20, 24, 28, 32, 36, 40, 48, 56, 64, 72, 80, 96, 128, 160];

/// Layers, heads and head width of a nano model: about one layer and one head for every 16 of width, with heads that
/// divide it; from 128 on fewer layers and heads of 32.
fn nano_shape(d_model: usize) -> (usize, usize, usize) {
    if d_model > 96 {
        return (d_model / 20, d_model / 32, 32);
    }
    let n_layers = (d_model + 8) / 16;
    let most = d_model.div_ceil(16);
    let n_heads = (1..=most).rev().find(|h| d_model.is_multiple_of(*h)).unwrap_or(1);
    (n_layers, n_heads, d_model / n_heads)
}

fn nano(base: &Base) -> Vec<Size> {
    NANO_WIDTHS
        .into_iter()
        .map(|d_model| {
            let (n_layers, n_heads, d_head) = nano_shape(d_model);
            let model = base.model(n_layers, n_heads, d_head, d_model);
            Size { name: short_count(parameters(&model).total()), model, published: None }
        })
        .collect()
}

/// A count for names: `7.5k`, `438k`, `1.3M`, `44M`, `7.1B`.
pub fn short_count(n: u64) -> String {
    let mut x = n as f64;
    for unit in ["", "k", "M", "B"] {
        if x < 999.5 || unit == "B" {
            let decimals = usize::from(x < 9.95 && !unit.is_empty());
            return format!("{x:.decimals$}{unit}");
        }
        x /= 1000.0;
    }
    n.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gopher_has_the_published_sizes() {
        let sizes = FamilyName::Gopher.sizes(&FamilyName::Gopher.base());
        let weights: Vec<u64> = sizes.iter().map(|s| parameters(&s.model).weights()).collect();
        assert_eq!(
            weights,
            [43_646_976, 116_588_544, 417_202_176, 1_374_158_848, 7_110_393_856, 279_697_162_240]
        );
        let names: Vec<String> = weights.iter().map(|w| short_count(*w)).collect();
        assert_eq!(names, sizes.iter().map(|s| s.name.clone()).collect::<Vec<_>>());
        assert_eq!(sizes[5].published, Some(Published { lr: 4e-5, batch_tokens: 3_145_728 }));
    }

    #[test]
    fn nano_contains_the_shapes_that_were_tried() {
        let sizes = FamilyName::Nano.sizes(&FamilyName::Nano.base());
        let tried = [
            (1, 1, 16, 16, 7_504, "7.5k"),
            (2, 2, 12, 24, 21_336, "21k"),
            (2, 2, 16, 32, 35_104, "35k"),
            (3, 3, 16, 48, 102_768, "103k"),
            (4, 4, 16, 64, 230_464, "230k"),
            (5, 5, 16, 80, 438_160, "438k"),
            (6, 6, 16, 96, 745_824, "746k"),
            (6, 4, 32, 128, 1_313_920, "1.3M"),
            (8, 5, 32, 160, 2_708_640, "2.7M"),
        ];
        for (l, h, k, d, params, name) in tried {
            let size = sizes.iter().find(|s| s.model.d_model == d).unwrap();
            let m = &size.model;
            assert_eq!((m.n_layers, m.n_heads, m.d_head), (l, h, k), "d_model {d}");
            assert_eq!((parameters(m).total(), size.name.as_str()), (params, name));
        }
    }

    #[test]
    fn shapes_are_found_near_any_count() {
        for params in [50e6, 123e6, 1.4e9, 3.3e9, 67e9, 280e9, 1e12] {
            let found = FamilyName::Gopher.shape_near(&FamilyName::Gopher.base(), params, false);
            let counted = parameters(&found).total() as f64;
            assert!((counted / params - 1.0).abs() < 0.06, "{params}: {counted} {found:?}");
            assert!(found.check().is_ok());
        }
        let sizes = FamilyName::Gopher.sizes(&FamilyName::Gopher.base());
        let found = FamilyName::Gopher.shape_near(&FamilyName::Gopher.base(), 7.11e9, false);
        assert_eq!(found, sizes[4].model);
        let nano = FamilyName::Nano.shape_near(&FamilyName::Nano.base(), 2e5, false);
        assert!((parameters(&nano).total() as f64 / 2e5 - 1.0).abs() < 0.25, "{nano:?}");
        // Smaller than anything with this vocabulary: the smallest there is.
        assert_eq!(FamilyName::Gopher.shape_near(&FamilyName::Gopher.base(), 1e3, false), sizes[0].model);
    }

    #[test]
    fn nano_names_are_unique_and_sizes_grow() {
        let sizes = FamilyName::Nano.sizes(&FamilyName::Nano.base());
        for pair in sizes.windows(2) {
            assert_ne!(pair[0].name, pair[1].name);
            assert!(parameters(&pair[0].model).total() < parameters(&pair[1].model).total());
        }
        assert!(sizes.iter().all(|s| s.model.check().is_ok() && s.model.d_head % 2 == 0));
    }

    #[test]
    fn counts_in_short() {
        let short = [999, 7_504, 21_336, 999_499, 1_313_920, 9_960_000, 7_110_393_856, 1_500_000_000_000]
            .map(short_count);
        assert_eq!(short, ["999", "7.5k", "21k", "999k", "1.3M", "10M", "7.1B", "1500B"]);
    }
}
