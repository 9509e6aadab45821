//! Options of fits that `isoflop fit`, `isoflop allocate`, `isoflop propose` and `isoflop report` share: how runs are read, and which law is fitted how.

use isoflop_compiler::count::Convention;
use isoflop_sweeps::fit::input::{ColumnMap, ReadOptions, Task, read_file};
use isoflop_sweeps::fit::{
    Asked, DownstreamOptions, FitDocument, FitOptions, IntervalKind, LossColumn, MinimumMethod, NamedLaw,
    Objective, ParamCount, Starts,
};
use isoflop_sweeps::propose::FittedRuns;
use isoflop_sweeps::report::ReportInput;
use isoflop_sweeps::reports;
use isoflop_sweeps::results::{self, Chosen, ResultsError, Wanted};
use isoflop_sweeps::study::Study;
use miette::miette;
use std::collections::BTreeMap;
use std::path::Path;

#[derive(clap::Args)]
pub struct FitArgs {
    /// Approaches of Hoffmann et al. 2022: 1, 2, 3 or all
    #[arg(long, value_delimiter = ',')]
    approach: Option<Vec<String>>,
    /// Columns of the table: params=COL,tokens=COL,flops=COL,loss=COL,accuracy=COL,group=COL; `none` for no column
    #[arg(long)]
    map: Vec<String>,
    /// How the table's FLOPs were counted, or are counted where it has none: 6nd, kaplan, ...
    #[arg(long, value_parser = convention)]
    flops_convention: Option<Convention>,
    /// Tokens in the vocabulary of the table's runs: those with a loss above its logarithm are left out
    #[arg(long)]
    vocab_size: Option<f64>,
    /// Which final loss: validation or train
    #[arg(long, value_parser = kebab::<LossColumn>)]
    loss: Option<LossColumn>,
    /// Which parameters N counts: total or non-embedding
    #[arg(long, value_parser = kebab::<ParamCount>)]
    params: Option<ParamCount>,
    /// Law of approach 3: chinchilla or kaplan
    #[arg(long, value_parser = kebab::<NamedLaw>, conflicts_with_all = ["fix_e", "tie_exponents"])]
    form: Option<NamedLaw>,
    /// Approach 3 with E fixed, in nats per token
    #[arg(long, value_name = "E", conflicts_with = "tie_exponents")]
    fix_e: Option<f64>,
    /// Approach 3 with alpha = beta
    #[arg(long)]
    tie_exponents: bool,
    /// Other laws to fit beside it: chinchilla, equal-exponents, kaplan, compute
    #[arg(long, value_delimiter = ',', value_parser = kebab::<NamedLaw>)]
    also: Vec<NamedLaw>,
    /// What approach 3 minimises: huber-log, mse-log, huber-linear or mse-linear
    #[arg(long, value_parser = kebab::<Objective>)]
    objective: Option<Objective>,
    /// Width of the quadratic part of the Huber terms
    #[arg(long)]
    delta: Option<f64>,
    /// Where approach 3 starts: projection, or grid for the published 4,500 starts as a check
    #[arg(long, value_parser = kebab::<Starts>)]
    starts: Option<Starts>,
    /// How approach 2 finds minima: parabola or akima
    #[arg(long, value_parser = kebab::<MinimumMethod>)]
    minimum: Option<MinimumMethod>,
    /// Intervals of resamples: percentile or bca; profile adds profile intervals of alpha, beta and a
    #[arg(long, value_delimiter = ',', value_parser = kebab::<IntervalKind>)]
    interval: Vec<IntervalKind>,
    /// Resample the runs of each isoFLOP budget by themselves
    #[arg(long)]
    stratify: bool,
    /// Weigh runs by the noise that repeats show
    #[arg(long)]
    seed_weights: bool,
    /// Tasks whose losses and accuracies stand side by side: NAME=LOSSCOL:ACCURACYCOL or with :CHANCE
    #[arg(long, value_delimiter = ',')]
    tasks: Vec<String>,
    /// Accuracy of a guess, which is the sigmoid's floor: 0.25, or by group as easy=0.25,hard=0.2
    #[arg(long, value_delimiter = ',')]
    chance: Vec<String>,
    /// The sigmoid's ceiling
    #[arg(long, value_name = "ACCURACY")]
    ceiling: Option<f64>,
    /// Width of the quadratic part of the Huber terms of accuracies
    #[arg(long, value_name = "ACCURACY")]
    accuracy_delta: Option<f64>,
    /// Accuracies are in percent
    #[arg(long)]
    percent: bool,
    /// Resamples for intervals; 0 for none
    #[arg(long)]
    bootstrap: Option<usize>,
    /// Share of resamples inside an interval
    #[arg(long)]
    level: Option<f64>,
    /// Seed of the resamples
    #[arg(long)]
    seed: Option<u64>,
}

fn convention(name: &str) -> Result<Convention, String> {
    let names = || Convention::ALL.map(Convention::name).join(", ");
    Convention::ALL
        .into_iter()
        .find(|c| c.name() == name)
        .ok_or_else(|| format!("expected one of {}", names()))
}

/// A value of an enum by the name that sweep files use.
fn kebab<T: serde::de::DeserializeOwned>(name: &str) -> Result<T, String> {
    serde_json::from_value(name.into()).map_err(|e| e.to_string())
}

/// 1, 2, 3 or all.
fn approaches(words: &[String]) -> miette::Result<Vec<u8>> {
    let mut found = Vec::new();
    for word in words {
        match word.trim() {
            "all" => found.extend([1, 2, 3]),
            "1" => found.push(1),
            "2" => found.push(2),
            "3" => found.push(3),
            other => return Err(miette!("--approach: found `{other}`, expected 1, 2, 3 or all")),
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// An error with its help, where it has one.
pub fn shown(error: ResultsError) -> miette::Report {
    match error {
        ResultsError::Input(error) => error.into(),
        other => miette!("{other}"),
    }
}

impl FitArgs {
    /// Fits a study or a table of runs.
    pub fn fitted(
        &self,
        runs: &Path,
        targets: Option<&[f64]>,
        wanted: Wanted<'_>,
    ) -> miette::Result<FitDocument> {
        if !runs.is_dir() {
            let (reading, options, chosen) = self.of_table(targets)?;
            return results::fit_table(runs, &reading, &options, chosen, wanted).map_err(shown);
        }
        let study = Study::new(runs);
        let options = self.of_study(&study, targets)?;
        Ok(results::fit(&study, &options, wanted).map_err(shown)?.1)
    }

    /// As [`fitted`](Self::fitted), with the runs that were fitted; nothing is written.
    pub fn fitted_runs(&self, runs: &Path) -> miette::Result<(FitDocument, FittedRuns)> {
        if !runs.is_dir() {
            let (reading, options, chosen) = self.of_table(None)?;
            let input = read_file(runs, &reading)?;
            let document = results::fit_read(&input, &options, chosen).map_err(|e| miette!("{e}"))?;
            return Ok((document, FittedRuns { runs: input.runs, groups: input.groups }));
        }
        let study = Study::new(runs);
        let options = self.of_study(&study, None)?;
        let found = results::read(&study).map_err(shown)?;
        let (_, document) = results::fit_only(&study, &found, &options).map_err(shown)?;
        Ok((document, FittedRuns { runs: found.runs, groups: Vec::new() }))
    }

    /// How a table is read.
    pub fn reading(&self) -> miette::Result<ReadOptions> {
        Ok(ReadOptions {
            map: ColumnMap::parse(self.map.iter().map(String::as_str))?,
            convention: self.flops_convention,
            vocab_size: self.vocab_size,
            tasks: self.tasks.iter().map(|t| Task::parse(t)).collect::<Result<_, _>>()?,
            percent: self.percent,
        })
    }

    /// The report of a study, of a table of runs or one of its groups, or of a fit.json.
    pub fn reported(
        &self,
        runs: &Path,
        targets: Option<&[f64]>,
        group: Option<&str>,
    ) -> miette::Result<ReportInput> {
        if runs.is_dir() {
            if group.is_some() {
                return Err(miette!("--group is for tables; {} is a study", runs.display()));
            }
            let study = Study::new(runs);
            let options = self.of_study(&study, targets)?;
            return reports::of_study(&study, &options).map_err(shown);
        }
        if reports::is_fit(runs) {
            return reports::of_fit(runs, group).map_err(shown);
        }
        let (reading, options, chosen) = self.of_table(targets)?;
        reports::of_table(runs, &reading, &options, chosen, group).map_err(shown)
    }

    /// How a table is read and fitted.
    fn of_table(&self, targets: Option<&[f64]>) -> miette::Result<(ReadOptions, FitOptions, Chosen)> {
        let reading = self.reading()?;
        let chosen = Chosen { loss: self.loss.is_some(), params: self.params.is_some() };
        let mut options = self.options(FitOptions::default(), targets)?;
        options.downstream = self.downstream(&reading.tasks)?;
        if !reading.tasks.is_empty() && self.approach.is_none() {
            // Accuracy rests on approach 3; tables of tasks are seldom made of budgets.
            options.approaches = vec![3];
        }
        Ok((reading, options, chosen))
    }

    /// How a study is fitted.
    fn of_study(&self, study: &Study, targets: Option<&[f64]>) -> miette::Result<FitOptions> {
        let options = self.options(results::options(study).map_err(shown)?, targets)?;
        let given = [
            ("--map", !self.map.is_empty()),
            ("--vocab-size", self.vocab_size.is_some()),
            ("--flops-convention", self.flops_convention.is_some()),
            ("--tasks", !self.tasks.is_empty()),
            ("--chance", !self.chance.is_empty()),
            ("--ceiling", self.ceiling.is_some()),
            ("--accuracy-delta", self.accuracy_delta.is_some()),
            ("--percent", self.percent),
        ];
        match given.iter().find(|(_, given)| *given) {
            Some((flag, _)) => {
                Err(miette!("{flag} is for tables; {} is a study, whose plan says it", study.dir().display()))
            }
            None => Ok(options),
        }
    }

    /// How accuracies are fitted.
    fn downstream(&self, tasks: &[Task]) -> miette::Result<DownstreamOptions> {
        let mut chance: BTreeMap<String, f64> =
            tasks.iter().filter_map(|t| Some((t.name.clone(), t.chance?))).collect();
        for word in &self.chance {
            let (name, value) = word.rsplit_once('=').unwrap_or(("", word));
            let expected = "an accuracy such as 0.25, or NAME=0.25 for one group, each once";
            let value = value.trim().parse::<f64>().ok();
            match value.filter(|_| !chance.contains_key(name.trim())) {
                Some(value) => chance.insert(name.trim().to_string(), value),
                None => return Err(miette!("--chance: found `{word}`, expected {expected}")),
            };
        }
        Ok(DownstreamOptions { chance, ceiling: self.ceiling, delta: self.accuracy_delta })
    }

    fn options(&self, usual: FitOptions, targets: Option<&[f64]>) -> miette::Result<FitOptions> {
        let FitArgs { form, fix_e, tie_exponents, objective, delta, starts, minimum, .. } = *self;
        let FitArgs { loss, params, bootstrap, level, seed, .. } = *self;
        let asked = Asked {
            approaches: self.approach.as_deref().map(approaches).transpose()?,
            form,
            fix_e,
            tie_exponents,
            also: (!self.also.is_empty()).then(|| self.also.clone()),
            objective,
            delta,
            starts,
            minimum,
            interval: self.interval.clone(),
            stratify: self.stratify.then_some(true),
            seed_weights: self.seed_weights.then_some(true),
            bootstrap,
            level,
            seed,
            loss,
            params,
            targets: targets.map(<[f64]>::to_vec),
        };
        asked.over(usual).map_err(|e| miette!("{e}"))
    }
}
