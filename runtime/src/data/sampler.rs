//! Drawing batches: which tokens each step sees depends on the seed, the step and the data, never on the model.
//!
//! The corpus is cut into windows of `seq_len` tokens that do not overlap. Every epoch visits each window once, in
//! an order that is a keyed permutation computed on the fly, so that resuming needs only the number of the step.

use super::{DataError, TokenFile};
use std::path::{Path, PathBuf};

/// Token files read one after another as one sequence.
#[derive(Debug)]
pub struct Corpus {
    files: Vec<TokenFile>,
    /// Position of each file's first token.
    starts: Vec<u64>,
    count: u64,
    vocab_size: usize,
}

impl Corpus {
    /// Opens and verifies `paths`. Tokens read from it must be below `vocab_size`.
    pub fn open(paths: &[PathBuf], vocab_size: usize) -> Result<Corpus, DataError> {
        let mut corpus = Corpus { files: Vec::new(), starts: Vec::new(), count: 0, vocab_size };
        for path in paths {
            let file = TokenFile::open(path)?;
            file.verify()?;
            corpus.starts.push(corpus.count);
            corpus.count += file.count();
            corpus.files.push(file);
        }
        Ok(corpus)
    }

    /// Tokens in all files.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// A name for the content: equal for equal shards wherever they lie. Files without a hash count by size.
    pub fn fingerprint(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        for file in &self.files {
            hasher.update(&(file.width() as u64).to_le_bytes()).update(&file.count().to_le_bytes());
            if let Some(header) = file.header() {
                hasher.update(header.blake3.as_bytes());
            }
        }
        hasher.finalize()
    }

    fn paths(&self) -> Vec<PathBuf> {
        self.files.iter().map(|f| f.path().to_path_buf()).collect()
    }

    /// Copies tokens `at .. at + out.len()`, which must lie in the corpus.
    fn read(&self, at: u64, out: &mut [i32]) -> Result<(), DataError> {
        let mut file = self.starts.partition_point(|s| *s <= at) - 1;
        let mut done = 0;
        while done < out.len() {
            let (source, within) = (&self.files[file], at + done as u64 - self.starts[file]);
            let take = ((source.count() - within) as usize).min(out.len() - done);
            let max = source.read(within, &mut out[done..done + take])?;
            if max as usize >= self.vocab_size {
                return Err(self.out_of_range(source.path(), within, &out[done..done + take]));
            }
            done += take;
            file += 1;
        }
        Ok(())
    }

    #[cold]
    fn out_of_range(&self, path: &Path, start: u64, tokens: &[i32]) -> DataError {
        let at = tokens.iter().position(|t| *t as u32 as usize >= self.vocab_size).unwrap_or_default();
        DataError::TokenOutOfRange {
            path: path.into(),
            position: start + at as u64,
            token: tokens[at] as u32,
            vocab_size: self.vocab_size,
        }
    }

    /// Whole windows of `seq_len` tokens whose last target is still in the corpus.
    fn windows(&self, seq_len: usize) -> u64 {
        self.count.saturating_sub(1) / seq_len as u64
    }

    /// Writes window `window` as inputs and as targets, which are the inputs shifted by one. `scratch` holds one token
    /// more than either: every token is read once.
    fn window(
        &self,
        window: u64,
        tokens: &mut [i32],
        targets: &mut [i32],
        scratch: &mut [i32],
    ) -> Result<(), DataError> {
        let seq_len = tokens.len();
        self.read(window * seq_len as u64, scratch)?;
        tokens.copy_from_slice(&scratch[..seq_len]);
        targets.copy_from_slice(&scratch[1..]);
        Ok(())
    }
}

/// The training data of a run.
#[derive(Debug)]
pub struct Sampler {
    corpus: Corpus,
    seed: u64,
    batch: usize,
    seq_len: usize,
    windows: u64,
}

impl Sampler {
    /// `batch` sequences of `seq_len` tokens a step, in the order of `seed`.
    pub fn new(corpus: Corpus, seed: u64, batch: usize, seq_len: usize) -> Result<Sampler, DataError> {
        let windows = corpus.windows(seq_len);
        if windows == 0 {
            return Err(DataError::TooShort {
                what: "training",
                paths: corpus.paths(),
                tokens: corpus.count,
                needed: seq_len as u64 + 1,
                why: format!("one sequence of seq_len {seq_len} and its last target"),
                keys: "seq_len",
            });
        }
        Ok(Sampler { corpus, seed, batch, seq_len, windows })
    }

    pub fn corpus(&self) -> &Corpus {
        &self.corpus
    }

    /// Windows of one epoch.
    pub fn windows(&self) -> u64 {
        self.windows
    }

    /// How often `steps` steps see every window, on average. Above 1 tokens are seen again.
    pub fn epochs(&self, steps: u64) -> f64 {
        steps as f64 * self.batch as f64 / self.windows as f64
    }

    /// The batch of optimiser step `step` (0-based): `tokens` and `targets`, both [batch, seq_len].
    pub fn fill(&self, step: u64, tokens: &mut [i32], targets: &mut [i32]) -> Result<(), DataError> {
        let rows = tokens.chunks_exact_mut(self.seq_len).zip(targets.chunks_exact_mut(self.seq_len));
        let mut scratch = vec![0; self.seq_len + 1];
        for (row, (tokens, targets)) in rows.enumerate() {
            let sequence = step * self.batch as u64 + row as u64;
            let window = self.window_of(sequence);
            self.corpus.window(window, tokens, targets, &mut scratch)?;
        }
        Ok(())
    }

    /// The window of the run's `sequence`-th sequence.
    pub fn window_of(&self, sequence: u64) -> u64 {
        let (epoch, within) = (sequence / self.windows, sequence % self.windows);
        permute(within, self.windows, mix(self.seed ^ DATA_STREAM) ^ mix(epoch.wrapping_add(1)))
    }
}

/// The first sequences of the validation data, in order, in whole batches: the same ones every time.
#[derive(Debug)]
pub struct Validation {
    corpus: Corpus,
    batch: usize,
    seq_len: usize,
    batches: u64,
}

impl Validation {
    /// `sequences` rounded up to whole batches, or down where the corpus does not hold that many.
    pub fn new(
        corpus: Corpus,
        sequences: usize,
        batch: usize,
        seq_len: usize,
    ) -> Result<Validation, DataError> {
        let held = corpus.windows(seq_len) / batch as u64;
        let batches = (sequences.div_ceil(batch) as u64).min(held);
        if batches == 0 {
            return Err(DataError::TooShort {
                what: "validation",
                paths: corpus.paths(),
                tokens: corpus.count,
                needed: (batch * seq_len) as u64 + 1,
                why: format!("one batch of {batch} sequences of seq_len {seq_len}"),
                keys: "batch or seq_len",
            });
        }
        Ok(Validation { corpus, batch, seq_len, batches })
    }

    pub fn corpus(&self) -> &Corpus {
        &self.corpus
    }

    pub fn batches(&self) -> u64 {
        self.batches
    }

    /// Batch `index` of [`Validation::batches`]: `tokens` and `targets`, both [batch, seq_len].
    pub fn fill(&self, index: u64, tokens: &mut [i32], targets: &mut [i32]) -> Result<(), DataError> {
        let rows = tokens.chunks_exact_mut(self.seq_len).zip(targets.chunks_exact_mut(self.seq_len));
        let mut scratch = vec![0; self.seq_len + 1];
        for (row, (tokens, targets)) in rows.enumerate() {
            let window = index * self.batch as u64 + row as u64;
            self.corpus.window(window, tokens, targets, &mut scratch)?;
        }
        Ok(())
    }
}

/// Keeps the stream of the data apart from others drawn from the same seed.
const DATA_STREAM: u64 = 0x6461_7461_6f72_6465;

/// The finaliser of SplitMix64 (Steele, Lea and Flood 2014), a bijection of u64 that mixes every bit.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Where `index` goes in the permutation of `0..n` that `key` names: a Feistel network of six rounds over the next
/// even power of two, walked along its cycle until it is back below `n` (Black and Rogaway 2002).
fn permute(index: u64, n: u64, key: u64) -> u64 {
    let bits = u64::BITS - n.saturating_sub(1).leading_zeros();
    let half = bits.div_ceil(2).max(1);
    let mask = (1u64 << half) - 1;
    let mut x = index;
    loop {
        let (mut left, mut right) = (x >> half, x & mask);
        for round in 0..6 {
            (left, right) = (right, left ^ (mix(right ^ key.rotate_left(8 * round)) & mask));
        }
        x = left << half | right;
        if x < n {
            return x;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_key_gives_a_permutation(n in 1u64..700, key: u64) {
            let mut seen = vec![false; n as usize];
            for i in 0..n {
                let to = permute(i, n, key) as usize;
                prop_assert!(!seen[to], "{to} twice");
                seen[to] = true;
            }
        }
    }

    #[test]
    fn a_permutation_of_many_keeps_no_order() {
        let n = 100_000;
        let near = (0..n - 1).filter(|i| permute(*i, n, 7).abs_diff(permute(i + 1, n, 7)) < n / 100).count();
        // Independent draws are this near with probability about 2 in 100.
        assert!((1500..2500).contains(&near), "{near}");
        let same = (0..n).filter(|i| permute(*i, n, 7) == permute(*i, n, 8)).count();
        assert!(same < 20, "{same}");
    }
}
