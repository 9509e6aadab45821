//! From the file as written to what it means: defaults filled in, names looked up, and every rule that involves more
//! than one key checked.

use super::error::{FileError, Source};
use super::resolve_executor::slurm;
use super::resolve_fit::fit;
use super::resolve_list::{self, listed};
use super::resolve_train::train;
use super::schema::{self, NumberOr, PlanKind, SweepFile};
use super::{DataSpec, PlanSpec, Points, SizeChoice, Sweep};
use crate::family::{Base, FamilyName, Published, Size, short_count};
use isoflop_compiler::count::{Convention, parameters};
use serde_spanned::Spanned;
use std::collections::HashSet;
use std::fmt::Display;

pub(super) type Checked<T> = Result<T, Box<FileError>>;

/// Widths and counts above this are slips of the keyboard, and products of them would not be exact in f64.
const LARGEST_DIMENSION: usize = 1 << 24;
/// Above this a count of tokens or FLOPs is not a plan.
pub(super) const LARGEST_COUNT: f64 = 1e30;

pub(super) fn resolve(source: &Source<'_>, file: &SweepFile) -> Checked<Sweep> {
    let name = file.sweep.name.get_ref();
    check_name(source, "sweep.name", &file.sweep.name)?;
    let seeds = match &file.sweep.seeds {
        None => vec![0],
        Some(seeds) => {
            not_empty(source, "sweep.seeds", seeds)?;
            no_repeats(source, "sweep.seeds", seeds)?;
            seeds.get_ref().clone()
        }
    };
    let family = sizes(source, &file.family)?;
    let sizes = chosen(source, &file.plan, family)?;
    let plan = plan(source, file, &sizes, &seeds)?;
    let train = train(source, &file.train, &sizes)?;
    let data = file.data.as_ref().map(|d| DataSpec {
        train: d.train.get_ref().into(),
        validation: d.validation.as_ref().map(|v| v.get_ref().into()),
        tokenizer: d.tokenizer.as_ref().map(|t| t.get_ref().into()),
    });
    let jobs = at_least_one(source, "executor.jobs", file.executor.jobs.as_ref())?;
    let slurm = slurm(source, &file.executor)?;
    let fit = fit(source, &file.fit)?;
    Ok(Sweep { name: name.clone(), seeds, sizes, plan, train, data, jobs, slurm, fit })
}

fn sizes(source: &Source<'_>, table: &Spanned<schema::FamilyTable>) -> Checked<Vec<Size>> {
    let family = table.get_ref();
    let default = family.name.as_ref().map(|n| *n.get_ref());
    let need = |key: &str, given: Option<usize>, default: Option<usize>| {
        given.or(default).ok_or_else(|| {
            let message = format!("`{key}` is missing in [family]");
            let help =
                format!("families without a name need `{key}` in [family] or in each [[family.shape]]");
            source.error(table.span(), format!("family.{key}"), message, help)
        })
    };
    let whole = |key: &str, given: &Option<Spanned<usize>>| match given {
        Some(v) if *v.get_ref() == 0 || *v.get_ref() > LARGEST_DIMENSION => {
            Err(source.bad_value(v.span(), key, v.get_ref(), "from 1 to 16777216"))
        }
        other => Ok(other.as_ref().map(|v| *v.get_ref())),
    };
    let vocab_size = whole("family.vocab_size", &family.vocab_size)?;
    let seq_len = whole("family.seq_len", &family.seq_len)?;
    let base = |vocab_size, seq_len| -> Checked<Base> {
        Ok(Base {
            vocab_size,
            seq_len,
            tied_embeddings: family.tied_embeddings,
            bias: family.bias,
            rms_eps: positive(source, "family.rms_eps", family.rms_eps.as_ref())?.unwrap_or(1e-6),
            init_std: positive(source, "family.init_std", family.init_std.as_ref())?.unwrap_or(0.02),
        })
    };
    let mut sizes = match default {
        Some(name) => {
            let of = |given: Option<usize>, default| given.unwrap_or(default);
            name.sizes(&base(of(vocab_size, name.vocab_size()), of(seq_len, name.seq_len()))?)
        }
        None => Vec::new(),
    };
    for shape in &family.shape {
        let s = shape.get_ref();
        let vocab_size =
            need("vocab_size", s.vocab_size.or(vocab_size), default.map(FamilyName::vocab_size))?;
        let seq_len = need("seq_len", s.seq_len.or(seq_len), default.map(FamilyName::seq_len))?;
        let mut model = base(vocab_size, seq_len)?.model(s.n_layers, s.n_heads, s.d_head, s.d_model);
        model.d_ff = s.d_ff.unwrap_or(model.d_ff);
        model.tied_embeddings = s.tied_embeddings.unwrap_or(model.tied_embeddings);
        model.bias = s.bias.unwrap_or(model.bias);
        let fail = |message: String| source.error(shape.span(), "family.shape", message, None);
        for (key, v) in [
            ("n_layers", model.n_layers),
            ("n_heads", model.n_heads),
            ("d_head", model.d_head),
            ("d_model", model.d_model),
            ("d_ff", model.d_ff),
            ("vocab_size", model.vocab_size),
            ("seq_len", model.seq_len),
        ] {
            if v > LARGEST_DIMENSION {
                return Err(fail(format!("`{key}` of this shape is {v}; the most is {LARGEST_DIMENSION}")));
            }
        }
        model.check().map_err(|why| fail(format!("this shape cannot be: {why}")))?;
        let size_name = match &s.name {
            Some(n) => {
                check_name(source, "family.shape.name", n)?;
                n.get_ref().clone()
            }
            None => short_count(parameters(&model).total()),
        };
        if sizes.iter().any(|other| other.name == size_name) {
            let message = format!("two sizes are called `{size_name}`");
            let help = "give this shape a `name` of its own".to_owned();
            return Err(source.error(shape.span(), "family.shape.name", message, help));
        }
        let lr = positive(source, "family.shape.lr", s.lr.as_ref())?;
        let batch = s.batch_tokens.as_ref().map(|b| *b.get_ref());
        let published = match (lr, batch) {
            (Some(lr), Some(batch_tokens)) => Some(Published { lr, batch_tokens }),
            (None, None) => None,
            _ => return Err(fail("a shape has both `lr` and `batch_tokens`, or neither".into())),
        };
        sizes.push(Size { name: size_name, model, published });
    }
    if sizes.is_empty() {
        let names = FamilyName::ALL.map(|n| format!("name = \"{}\"", n.name())).join(" or ");
        let help = format!("write {names}, or add [[family.shape]] tables");
        return Err(source.error(table.span(), "family", "[family] has no sizes", help));
    }
    Ok(sizes)
}

/// The sizes that `[plan] sizes` or the runs of a list name, or all.
fn chosen(source: &Source<'_>, plan: &schema::PlanTable, family: Vec<Size>) -> Checked<Vec<Size>> {
    if *plan.kind.get_ref() == PlanKind::List {
        return resolve_list::sizes(source, &plan.run, &family);
    }
    let Some((names, NumberOr::Other(list))) = plan.sizes.as_ref().map(|s| (s, s.get_ref())) else {
        return Ok(family);
    };
    if list.is_empty() {
        return Err(source.bad_value(names.span(), "plan.sizes", "an empty list", "one or more size names"));
    }
    let known: Vec<String> = family.iter().map(|s| s.name.clone()).collect();
    let mut sizes: Vec<Size> = Vec::new();
    for name in list {
        let found = family.iter().find(|s| s.name == *name.get_ref()).ok_or_else(|| {
            source.bad_name(name.span(), "plan.sizes", "size of this family", name.get_ref(), &known)
        })?;
        if sizes.contains(found) {
            let message = format!("`plan.sizes` has `{}` twice", name.get_ref());
            return Err(source.error(name.span(), "plan.sizes", message, None));
        }
        sizes.push(found.clone());
    }
    Ok(sizes)
}

fn plan(source: &Source<'_>, file: &SweepFile, sizes: &[Size], seeds: &[u64]) -> Checked<PlanSpec> {
    let p = &file.plan;
    let kind = *p.kind.get_ref();
    let missing = |key: &str, why: &str| {
        let message = format!("`{key}` is missing in [plan]");
        source.error(p.kind.span(), format!("plan.{key}"), message, Some(why.to_owned()))
    };
    let unused = |span, key: &str, why: &str| {
        Err(source.error(span, format!("plan.{key}"), format!("`{key}` has no use here: {why}"), None))
    };
    let counts = |key: &str, list: &Spanned<Vec<f64>>| -> Checked<Vec<f64>> {
        not_empty(source, key, list)?;
        if let Some(bad) =
            list.get_ref().iter().find(|v| !(v.is_finite() && **v > 0.0 && **v <= LARGEST_COUNT))
        {
            return Err(source.bad_value(list.span(), key, bad, "numbers above 0, such as 1e12"));
        }
        no_repeats(source, key, list)?;
        Ok(list.get_ref().clone())
    };
    if let Some(run) = p.run.first().filter(|_| kind != PlanKind::List) {
        return unused(run.span(), "run", "only kind = \"list\" has [[plan.run]] tables");
    }
    let points = match kind {
        PlanKind::List => {
            let strangers = [
                ("flops", p.flops.as_ref().map(Spanned::span)),
                ("tokens", p.tokens.as_ref().map(Spanned::span)),
                ("sizes", p.sizes.as_ref().map(Spanned::span)),
                ("spacing", p.spacing.as_ref().map(Spanned::span)),
                ("tokens_per_param", p.tokens_per_param.as_ref().map(Spanned::span)),
            ];
            if let Some((key, span)) = strangers.into_iter().find_map(|(key, span)| Some((key, span?))) {
                return unused(span, key, "with kind = \"list\" each [[plan.run]] has its size and tokens");
            }
            if p.run.is_empty() {
                let why = "kind = \"list\" needs [[plan.run]] tables, each with size and tokens";
                return Err(missing("run", why));
            }
            Points::List { runs: listed(source, &p.run, sizes, seeds)? }
        }
        PlanKind::Isoflop => {
            let flops = p.flops.as_ref().ok_or_else(|| {
                missing("flops", "kind = \"isoflop\" needs budgets, such as flops = [1e11, 3e11, 1e12]")
            })?;
            if let Some(tokens) = &p.tokens {
                return unused(tokens.span(), "tokens", "with kind = \"isoflop\" the budget sets the tokens");
            }
            let choice = match &p.sizes {
                None => SizeChoice::All,
                Some(s) => match s.get_ref() {
                    NumberOr::Other(_) => SizeChoice::All,
                    NumberOr::Number(n) if n.fract() == 0.0 && (1.0..=1000.0).contains(n) => {
                        let name = file.family.get_ref().name.as_ref().map(|n| *n.get_ref());
                        let usual = name.map_or(20.0, FamilyName::tokens_per_param);
                        let given = positive(source, "plan.tokens_per_param", p.tokens_per_param.as_ref())?;
                        let spacing = p.spacing.as_ref().map_or(2.0, |s| *s.get_ref());
                        if let Some(s) =
                            p.spacing.as_ref().filter(|_| !(spacing > 1.0 && spacing.is_finite()))
                        {
                            return Err(source.bad_value(
                                s.span(),
                                "plan.spacing",
                                spacing,
                                "a ratio above 1",
                            ));
                        }
                        SizeChoice::Around {
                            count: *n as usize,
                            spacing,
                            tokens_per_param: given.unwrap_or(usual),
                        }
                    }
                    NumberOr::Number(n) => {
                        let allowed = "a whole number from 1 to 1000, or a list of size names";
                        return Err(source.bad_value(s.span(), "plan.sizes", n, allowed));
                    }
                },
            };
            if let (SizeChoice::All, Some(s)) = (&choice, p.spacing.as_ref().or(p.tokens_per_param.as_ref()))
            {
                let key = if p.spacing.is_some() { "spacing" } else { "tokens_per_param" };
                return unused(s.span(), key, "it places sizes when `sizes` is a number");
            }
            Points::Isoflop { flops: counts("plan.flops", flops)?, sizes: choice }
        }
        PlanKind::Grid => {
            let tokens = p.tokens.as_ref().ok_or_else(|| {
                missing("tokens", "kind = \"grid\" needs token counts, such as tokens = [300e9]")
            })?;
            if let Some(flops) = &p.flops {
                return unused(flops.span(), "flops", "with kind = \"grid\" the tokens set the FLOPs");
            }
            if let Some((s, NumberOr::Number(n))) = p.sizes.as_ref().map(|s| (s, s.get_ref())) {
                return Err(source.bad_value(s.span(), "plan.sizes", n, "a list of size names in a grid"));
            }
            Points::Grid { tokens: counts("plan.tokens", tokens)? }
        }
    };
    Ok(PlanSpec {
        points,
        convention: p.convention.unwrap_or(Convention::SixNd),
        min_steps: p.min_steps.unwrap_or(20),
        device: p.device.as_ref().map_or_else(|| "cpu".to_owned(), |d| d.get_ref().clone()),
    })
}

fn check_name(source: &Source<'_>, key: &str, name: &Spanned<String>) -> Checked<()> {
    let ok = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let text = name.get_ref();
    if text.is_empty() || text.len() > 64 || text.starts_with(['.', '-']) || !text.chars().all(ok) {
        let allowed =
            "1 to 64 letters, digits, `.`, `_` and `-`, the first a letter or digit (it names folders)";
        return Err(source.bad_value(name.span(), key, format!("{text:?}"), allowed));
    }
    Ok(())
}

pub(super) fn not_empty<T>(source: &Source<'_>, key: &str, list: &Spanned<Vec<T>>) -> Checked<()> {
    if list.get_ref().is_empty() {
        return Err(source.bad_value(list.span(), key, "an empty list", "a list of at least one"));
    }
    Ok(())
}

pub(super) fn no_repeats<T: Display>(source: &Source<'_>, key: &str, list: &Spanned<Vec<T>>) -> Checked<()> {
    let mut seen = HashSet::new();
    match list.get_ref().iter().map(T::to_string).find(|v| !seen.insert(v.clone())) {
        Some(again) => Err(source.error(list.span(), key, format!("`{key}` has {again} twice"), None)),
        None => Ok(()),
    }
}

pub(super) fn positive(source: &Source<'_>, key: &str, value: Option<&Spanned<f64>>) -> Checked<Option<f64>> {
    match value {
        Some(v) if !(v.get_ref().is_finite() && *v.get_ref() > 0.0) => {
            Err(source.bad_value(v.span(), key, v.get_ref(), "a number above 0"))
        }
        given => Ok(given.map(|v| *v.get_ref())),
    }
}

pub(super) fn between(
    source: &Source<'_>,
    key: &str,
    value: Option<&Spanned<f64>>,
    low: f64,
    high: f64,
) -> Checked<Option<f64>> {
    match value {
        Some(v) if !(v.get_ref().is_finite() && (low..=high).contains(v.get_ref())) => {
            let allowed =
                if high == f64::MAX { format!("at least {low}") } else { format!("from {low} to {high}") };
            Err(source.bad_value(v.span(), key, v.get_ref(), &allowed))
        }
        given => Ok(given.map(|v| *v.get_ref())),
    }
}

pub(super) fn at_least_one<T: Copy + Display + PartialEq + Default>(
    source: &Source<'_>,
    key: &str,
    value: Option<&Spanned<T>>,
) -> Checked<Option<T>> {
    match value {
        Some(v) if *v.get_ref() == T::default() => {
            Err(source.bad_value(v.span(), key, v.get_ref(), "at least 1"))
        }
        given => Ok(given.map(|v| *v.get_ref())),
    }
}
