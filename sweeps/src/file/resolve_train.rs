//! The `[train]` table: batch and learning-rate rules, schedule, optimiser.

use super::error::Source;
use super::resolve::{Checked, at_least_one, between, positive};
use super::schema::{self, BatchRule, LrRule, NumberOr};
use super::{BatchSpec, LrSpec, TrainSpec, Warmup};
use crate::display::parse_bytes;
use crate::family::{Published, Size};
use isoflop_compiler::config::AdamW;
use isoflop_runtime::config::Decay;
use serde_spanned::Spanned;

pub(super) fn train(source: &Source<'_>, t: &schema::TrainTable, sizes: &[Size]) -> Checked<TrainSpec> {
    let o = &t.optimizer;
    let usual = AdamW::default();
    let betas = match &o.betas {
        Some(b) if b.get_ref().iter().any(|v| !(0.0..1.0).contains(v)) => {
            let found = format!("{:?}", b.get_ref());
            return Err(source.bad_value(
                b.span(),
                "train.optimizer.betas",
                found,
                "two numbers from 0 up to 1",
            ));
        }
        given => given.as_ref().map_or(usual.betas, |b| *b.get_ref()),
    };
    let optimizer = AdamW {
        betas,
        eps: positive(source, "train.optimizer.eps", o.eps.as_ref())?.unwrap_or(usual.eps),
        weight_decay: between(
            source,
            "train.optimizer.weight_decay",
            o.weight_decay.as_ref(),
            0.0,
            f64::MAX,
        )?
        .unwrap_or(usual.weight_decay),
        clip: positive(source, "train.optimizer.clip", o.clip.as_ref())?.unwrap_or(usual.clip),
    };
    let schedule = &t.schedule;
    let warmup = match (&schedule.warmup, &schedule.warmup_steps) {
        (Some(_), Some(steps)) => {
            let message = "both `warmup` and `warmup_steps` are given";
            let help = "keep `warmup` for a share of all steps, or `warmup_steps` for a number".to_owned();
            return Err(source.error(steps.span(), "train.schedule.warmup_steps", message, help));
        }
        (None, Some(steps)) => Warmup::Steps(*steps.get_ref()),
        (share, None) => {
            Warmup::Share(between(source, "train.schedule.warmup", share.as_ref(), 0.0, 1.0)?.unwrap_or(0.05))
        }
    };
    let final_fraction =
        between(source, "train.schedule.final", schedule.final_fraction.as_ref(), 0.0, 1.0)?.unwrap_or(0.1);
    let keep = t.keep_checkpoints.as_ref();
    if let Some(k) = keep.filter(|k| *k.get_ref() < 2) {
        let allowed = "at least 2, so that a damaged checkpoint has a predecessor";
        return Err(source.bad_value(k.span(), "train.keep_checkpoints", k.get_ref(), allowed));
    }
    let memory_budget = match &t.memory_budget {
        None => None,
        Some(text) => Some(parse_bytes(text.get_ref()).map_err(|_| {
            let allowed = "an amount of memory above 0, such as \"2GB\" or \"512MiB\"";
            source.bad_value(text.span(), "train.memory_budget", format!("{:?}", text.get_ref()), allowed)
        })?),
    };
    Ok(TrainSpec {
        memory_budget,
        batch: batch(source, &t.batch_tokens, sizes)?,
        lr: lr(source, &t.lr, sizes)?,
        lr_scale: match t.lr.get_ref() {
            NumberOr::Number(_) => 1.0,
            NumberOr::Other(table) => {
                positive(source, "train.lr.scale", table.scale.as_ref())?.unwrap_or(1.0)
            }
        },
        warmup,
        decay: schedule.decay.unwrap_or(Decay::Cosine),
        final_fraction,
        optimizer,
        validations: at_least_one(source, "train.validations", t.validations.as_ref())?.unwrap_or(4),
        validation_sequences: at_least_one(
            source,
            "train.validation_sequences",
            t.validation_sequences.as_ref(),
        )?
        .unwrap_or(256),
        checkpoints: at_least_one(source, "train.checkpoints", t.checkpoints.as_ref())?.unwrap_or(4),
        keep_checkpoints: keep.map_or(2, |k| *k.get_ref()),
        diverged_above: positive(source, "train.diverged_above", t.diverged_above.as_ref())?,
        tensorboard: t.tensorboard,
    })
}

fn batch(
    source: &Source<'_>,
    value: &Spanned<NumberOr<schema::BatchTable>>,
    sizes: &[Size],
) -> Checked<BatchSpec> {
    let key = "train.batch_tokens";
    let fixed = |span, tokens: f64| {
        if let Some(s) = sizes.iter().find(|s| tokens < s.model.seq_len as f64) {
            let allowed = format!("at least one sequence, {} tokens for size `{}`", s.model.seq_len, s.name);
            return Err(source.bad_value(span, key, tokens, &allowed));
        }
        if tokens.fract() != 0.0 || tokens > 1e15 {
            return Err(source.bad_value(span, key, tokens, "a whole number of tokens"));
        }
        Ok(BatchSpec::Fixed(tokens as u64))
    };
    let table = match value.get_ref() {
        NumberOr::Number(tokens) => return fixed(value.span(), *tokens),
        NumberOr::Other(table) => table,
    };
    let unused = |given: &Option<Spanned<u64>>, name: &str, rule: &str| match given {
        Some(v) => {
            let message = format!("`{name}` has no use with rule = \"{rule}\"");
            Err(source.error(v.span(), format!("{key}.{name}"), message, None))
        }
        None => Ok(()),
    };
    match table.rule.get_ref() {
        BatchRule::Fixed => {
            unused(&table.min, "min", "fixed")?;
            unused(&table.max, "max", "fixed")?;
            let tokens = table.tokens.as_ref().ok_or_else(|| {
                let message = "`tokens` is missing in [train.batch_tokens]";
                source.error(table.rule.span(), "train.batch_tokens.tokens", message, None)
            })?;
            fixed(tokens.span(), *tokens.get_ref() as f64)
        }
        BatchRule::StepLaw => {
            unused(&table.tokens, "tokens", "step-law")?;
            let min = table.min.as_ref().map_or(0, |v| *v.get_ref());
            let max = table.max.as_ref().map_or(u64::MAX, |v| *v.get_ref());
            if let Some(v) = table.max.as_ref().filter(|_| max < min.max(1)) {
                let allowed = format!("at least `min`, {}", min.max(1));
                return Err(source.bad_value(v.span(), "train.batch_tokens.max", max, &allowed));
            }
            Ok(BatchSpec::StepLaw { min, max })
        }
        BatchRule::Published => {
            unused(&table.min, "min", "published")?;
            unused(&table.max, "max", "published")?;
            unused(&table.tokens, "tokens", "published")?;
            let published = published(source, table.rule.span(), "train.batch_tokens.rule", sizes)?;
            Ok(BatchSpec::PerSize(published.iter().map(|p| p.batch_tokens).collect()))
        }
    }
}

fn lr(source: &Source<'_>, value: &Spanned<NumberOr<schema::LrTable>>, sizes: &[Size]) -> Checked<LrSpec> {
    let table = match value.get_ref() {
        NumberOr::Number(lr) if *lr > 0.0 && lr.is_finite() => return Ok(LrSpec::Fixed(*lr)),
        NumberOr::Number(lr) => {
            return Err(source.bad_value(value.span(), "train.lr", lr, "a number above 0"));
        }
        NumberOr::Other(table) => table,
    };
    let rule = *table.rule.get_ref();
    let missing = |key: &str, example: &str| {
        let message = format!("`{key}` is missing in [train.lr]");
        let help = format!("this rule is written {example}");
        source.error(table.rule.span(), format!("train.lr.{key}"), message, help)
    };
    let strangers = [
        ("lr", table.lr.as_ref().map(Spanned::span), LrRule::Fixed),
        ("base", table.base.as_ref().map(Spanned::span), LrRule::Width),
        ("sizes", table.sizes.as_ref().map(Spanned::span), LrRule::PerSize),
    ];
    for (key, span, owner) in strangers {
        if let Some(span) = span.filter(|_| owner != rule) {
            let message = format!("`{key}` has no use with this rule");
            return Err(source.error(span, format!("train.lr.{key}"), message, None));
        }
    }
    match rule {
        LrRule::Fixed => positive(source, "train.lr.lr", table.lr.as_ref())?
            .map(LrSpec::Fixed)
            .ok_or_else(|| missing("lr", "{ rule = \"fixed\", lr = 1e-3 }")),
        LrRule::Width => positive(source, "train.lr.base", table.base.as_ref())?
            .map(|base| LrSpec::Width { base })
            .ok_or_else(|| missing("base", "{ rule = \"width\", base = 0.16 }")),
        LrRule::StepLaw => Ok(LrSpec::StepLaw),
        LrRule::Published => {
            let published = published(source, table.rule.span(), "train.lr.rule", sizes)?;
            Ok(LrSpec::PerSize(published.iter().map(|p| p.lr).collect()))
        }
        LrRule::PerSize => {
            let given = table.sizes.as_ref().ok_or_else(|| {
                missing("sizes", "{ rule = \"per-size\", sizes = { 44M = 6e-4, 117M = 6e-4 } }")
            })?;
            let known: Vec<String> = sizes.iter().map(|s| s.name.clone()).collect();
            let mut rates = vec![None; sizes.len()];
            for (name, rate) in given.get_ref() {
                let index = known.iter().position(|k| k == name).ok_or_else(|| {
                    source.bad_name(given.span(), "train.lr.sizes", "size of this plan", name, &known)
                })?;
                let number = rate.as_float().or(rate.as_integer().map(|i| i as f64));
                let Some(number) = number.filter(|r| r.is_finite() && *r > 0.0) else {
                    let key = format!("train.lr.sizes.{name}");
                    return Err(source.bad_value(given.span(), &key, rate, "a number above 0"));
                };
                rates[index] = Some(number);
            }
            let complete = rates.iter().zip(&known).map(|(rate, name)| {
                rate.ok_or_else(|| {
                    let message = format!("`train.lr.sizes` has no rate for size `{name}`");
                    source.error(given.span(), "train.lr.sizes", message, None)
                })
            });
            Ok(LrSpec::PerSize(complete.collect::<Checked<_>>()?))
        }
    }
}

/// What is published for each of `sizes`.
fn published(
    source: &Source<'_>,
    span: std::ops::Range<usize>,
    key: &str,
    sizes: &[Size],
) -> Checked<Vec<Published>> {
    let of = |size: &Size| {
        size.published.ok_or_else(|| {
            let message = format!("nothing is published for size `{}`", size.name);
            let help =
                "the gopher family has published rates and batches; a [[family.shape]] can bring `lr` and \
                        `batch_tokens`; other rules need neither"
                    .to_owned();
            source.error(span.clone(), key, message, help)
        })
    };
    sizes.iter().map(of).collect()
}
