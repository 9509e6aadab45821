//! Which column holds what: by `--map`, or by the names that published tables and loggers give their columns.

use super::accuracy;
use super::error::InputError;
use super::numbers::heading_scale;
use super::table::{Table, listed};
use std::collections::BTreeMap;

/// What a column may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Parameters N.
    Params,
    ParamsNonEmbedding,
    /// Training tokens D.
    Tokens,
    /// Training compute C.
    Flops,
    /// The isoFLOP budget that the run belongs to.
    Budget,
    /// Final loss, validation where the table tells the two apart.
    Loss,
    TrainLoss,
    /// Accuracy of a task whose loss is the loss.
    Accuracy,
    /// Rows with different values are fitted apart.
    Group,
    /// The run's name.
    Run,
    Step,
    Status,
    Seed,
    VocabSize,
}

impl Role {
    pub const ALL: [Role; 14] = [
        Role::Params,
        Role::ParamsNonEmbedding,
        Role::Tokens,
        Role::Flops,
        Role::Budget,
        Role::Loss,
        Role::TrainLoss,
        Role::Accuracy,
        Role::Group,
        Role::Run,
        Role::Step,
        Role::Status,
        Role::Seed,
        Role::VocabSize,
    ];

    /// The name in `--map` and in fit.json.
    pub fn name(self) -> &'static str {
        match self {
            Role::Params => "params",
            Role::ParamsNonEmbedding => "params_non_embedding",
            Role::Tokens => "tokens",
            Role::Flops => "flops",
            Role::Budget => "budget",
            Role::Loss => "loss",
            Role::TrainLoss => "train_loss",
            Role::Accuracy => "accuracy",
            Role::Group => "group",
            Role::Run => "run",
            Role::Step => "step",
            Role::Status => "status",
            Role::Seed => "seed",
            Role::VocabSize => "vocab_size",
        }
    }

    /// Names of columns in lower case without spaces and marks; the first that a table has is taken where it must not
    /// be unique.
    fn aliases(self) -> &'static [&'static str] {
        match self {
            Role::Params => &[
                "params",
                "n",
                "nparams",
                "numparams",
                "parameters",
                "numparameters",
                "nparameters",
                "modelsize",
                "modelparams",
                "modelparameters",
                "totalparams",
                "paramcount",
                "paramsactiveprecise",
                "activeparams",
            ],
            Role::ParamsNonEmbedding => {
                &["paramsnonembedding", "nonembeddingparams", "nonembeddingparameters", "nparamsnonembedding"]
            }
            Role::Tokens => &[
                "tokens",
                "d",
                "ntokens",
                "numtokens",
                "trainingtokens",
                "traintokens",
                "tokensseen",
                "datasize",
                "datasetsize",
                "totaltokens",
            ],
            Role::Flops => &[
                "flops",
                "c",
                "flop",
                "compute",
                "trainingflop",
                "trainingflops",
                "trainflop",
                "trainflops",
                "trainingcompute",
                "totalflops",
                "totalflop",
            ],
            Role::Budget => {
                &["budget", "flopsbudget", "flopbudget", "computebudget", "isoflop", "isoflopbudget"]
            }
            Role::Loss => &[
                "loss",
                "finalloss",
                "valloss",
                "validationloss",
                "validloss",
                "evalloss",
                "evaluationloss",
                "testloss",
                "heldoutloss",
                "crossentropy",
                "crossentropyloss",
                "celoss",
            ],
            Role::TrainLoss => &["trainloss", "trainingloss"],
            Role::Accuracy => &["accuracy", "taskaccuracy"],
            Role::Group => &[],
            Role::Run => &["run", "runname", "name", "id", "runid", "experiment"],
            Role::Step => &["step", "globalstep", "trainerglobalstep", "steps", "iteration", "iter"],
            Role::Status => &["status", "state"],
            Role::Seed => &["seed"],
            Role::VocabSize => &["vocabsize", "nvocab"],
        }
    }

    /// Whether a wrong guess would change the fit.
    fn must_be_unique(self) -> bool {
        self < Role::Group
    }
}

/// `--map`: the columns that a user names. `none` says that no column has the role.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ColumnMap(BTreeMap<Role, String>);

impl ColumnMap {
    /// Adds a role's column; false where the role has another.
    pub(crate) fn name(&mut self, role: Role, column: &str) -> bool {
        self.0.entry(role).or_insert_with(|| column.to_string()) == column
    }

    /// The same in which a task has no loss or accuracy that this table lacks.
    pub(crate) fn of_task_in(&self, table: &Table) -> ColumnMap {
        let mut map = self.known_to(table);
        for role in [Role::Loss, Role::Accuracy] {
            map.name(role, "none");
        }
        map
    }

    /// The part whose columns this table has.
    pub(crate) fn known_to(&self, table: &Table) -> ColumnMap {
        let known = |name: &str| name == "none" || table.columns.iter().any(|c| plain(c) == plain(name));
        ColumnMap(self.0.iter().filter(|(_, name)| known(name)).map(|(r, n)| (*r, n.clone())).collect())
    }

    /// From `ROLE=COLUMN` parted by commas, in one or more texts. A piece without `=` belongs to the name before it.
    ///
    /// # Errors
    /// A role that does not exist, or is named twice, or has no column.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<ColumnMap, InputError> {
        let mut map = ColumnMap::default();
        for text in texts {
            let mut last = None;
            for piece in text.split(',') {
                match (piece.split_once('='), last) {
                    (Some((role, column)), _) => {
                        let found = Role::ALL.into_iter().find(|r| r.name() == role.trim());
                        let column = column.trim();
                        let Some(role) = found.filter(|r| !map.0.contains_key(r) && !column.is_empty())
                        else {
                            return Err(bad_map(piece));
                        };
                        map.0.insert(role, column.to_string());
                        last = Some(role);
                    }
                    (None, Some(role)) => {
                        let column = map.0.entry(role).or_default();
                        column.push(',');
                        column.push_str(piece);
                    }
                    (None, None) => return Err(bad_map(piece)),
                }
            }
        }
        Ok(map)
    }
}

fn bad_map(found: &str) -> InputError {
    let roles = Role::ALL.map(Role::name).join(", ");
    InputError::BadMap { found: found.to_string(), roles }
}

/// Where a table has what.
#[derive(Debug, Clone)]
pub(crate) struct Columns {
    pub of: BTreeMap<Role, usize>,
    /// What a heading such as `Parameters (M)` multiplies its column by.
    pub scale: BTreeMap<Role, f64>,
    /// The known layout, or `by name`.
    pub layout: &'static str,
    /// Whether each row is a run that ended, though names of runs repeat.
    pub finals: bool,
    /// Columns passed over for a role, where the layout made a choice.
    pub passed_over: Vec<String>,
}

impl Columns {
    pub fn get(&self, role: Role) -> Option<usize> {
        self.of.get(&role).copied()
    }
}

/// Lower case, letters and digits only.
fn plain(name: &str) -> String {
    // A scale or a unit in parentheses is no part of the name.
    let name =
        name.split_once('(').map_or(name, |(before, _)| if before.trim().is_empty() { name } else { before });
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// The names a column goes by: its own, and without the `config.` or `summary.` of an export.
fn names(column: &str) -> Vec<String> {
    let lower = column.trim().to_lowercase();
    let mut found = vec![plain(&lower)];
    for prefix in ["config", "summary", "_summary", "parameters", "metrics"] {
        if let Some(rest) = lower.strip_prefix(prefix).and_then(|r| r.strip_prefix(['.', '/', ':'])) {
            found.push(plain(rest.strip_suffix(".value").unwrap_or(rest)));
        }
    }
    found
}

/// Finds the columns. `with_loss` says whether the loss must be there.
///
/// # Errors
/// A mapped column that is not there, a role that several columns could have, and fewer than two of parameters, tokens and FLOPs.
pub(crate) fn resolve(table: &Table, map: &ColumnMap, with_loss: bool) -> Result<Columns, InputError> {
    let plain_names: Vec<Vec<String>> = table.columns.iter().map(|c| names(c)).collect();
    let has = |alias: &str| plain_names.iter().any(|n| n.iter().any(|n| n == alias));
    let mut of = BTreeMap::new();
    for (role, name) in &map.0 {
        if name != "none" {
            of.insert(*role, mapped(table, *role, name)?);
        }
    }
    let mut passed_over = Vec::new();
    for role in Role::ALL {
        if map.0.contains_key(&role) {
            continue;
        }
        let aliases = role.aliases();
        let rank = |i: usize| aliases.iter().position(|a| plain_names[i].iter().any(|n| n == a));
        let taken: Vec<usize> = of.values().copied().collect();
        let mut found: Vec<(usize, usize)> = (0..table.columns.len())
            .filter(|i| !taken.contains(i))
            .filter_map(|i| Some((rank(i)?, i)))
            .collect();
        found.sort();
        if found.is_empty() && role == Role::Loss {
            let (one, others) = other_losses(table, &plain_names, &taken)?;
            found.extend(one.map(|i| (0, i)));
            passed_over = others;
        }
        if found.len() > 1 && role.must_be_unique() {
            let candidates: Vec<String> = found.iter().map(|(_, i)| table.columns[*i].clone()).collect();
            return Err(ambiguous(table, role.name(), &candidates));
        }
        of.extend(found.first().map(|(_, i)| (role, *i)));
    }
    check(table, &of, with_loss)?;
    let scale_of = |role: Role, heading: &str| match role {
        Role::Accuracy => accuracy::heading_scale(heading),
        _ => heading_scale(heading),
    };
    let scale = of.iter().filter_map(|(r, i)| Some((*r, scale_of(*r, &table.columns[*i])?))).collect();
    let finals = has("finalloss") && of.get(&Role::Loss).is_some_and(|i| plain_names[*i][0] == "finalloss");
    let layout = layout(&has, !map.0.is_empty());
    Ok(Columns { of, scale, layout, finals, passed_over })
}

/// A column whose name only contains `loss`: the only one, or the C4 loss of the OLMo ladder's tables.
fn other_losses(
    table: &Table,
    plain_names: &[Vec<String>],
    taken: &[usize],
) -> Result<(Option<usize>, Vec<String>), InputError> {
    let ends = |i: &usize| {
        let name = &plain_names[*i][0];
        name.contains("loss") && !name.contains("train") && !taken.contains(i)
    };
    let found: Vec<usize> = (0..table.columns.len()).filter(ends).collect();
    let is_c4 = |i: &&usize| plain_names[**i][0] == "c4enceloss";
    let chosen = match found.as_slice() {
        [one] => Some(*one),
        more => more.iter().find(is_c4).copied(),
    };
    let others = found.iter().filter(|i| Some(**i) != chosen).map(|i| table.columns[*i].clone());
    let others: Vec<String> = others.collect();
    match chosen {
        None if !found.is_empty() => Err(ambiguous(table, Role::Loss.name(), &others)),
        _ => Ok((chosen, others)),
    }
}

fn ambiguous(table: &Table, role: &'static str, candidates: &[String]) -> InputError {
    InputError::AmbiguousColumn {
        path: table.path.clone(),
        role,
        candidates: listed(candidates),
        columns: table.listed(),
        first: candidates.first().cloned().unwrap_or_default(),
    }
}

fn mapped(table: &Table, role: Role, name: &str) -> Result<usize, InputError> {
    if let Some(i) = table.columns.iter().position(|c| c == name) {
        return Ok(i);
    }
    let alike: Vec<usize> =
        (0..table.columns.len()).filter(|&i| plain(&table.columns[i]) == plain(name)).collect();
    if let [one] = alike.as_slice() {
        return Ok(*one);
    }
    let distance = |c: &&String| strsim::damerau_levenshtein(&plain(c), &plain(name));
    let nearest = table.columns.iter().min_by_key(distance).filter(|c| distance(c) <= 1 + name.len() / 3);
    Err(InputError::MappedColumn {
        path: table.path.clone(),
        role: role.name(),
        name: name.to_string(),
        columns: table.listed(),
        nearest: nearest.map(|c| format!("did you mean `{c}`?")),
    })
}

/// Two of parameters, tokens and FLOPs, and the loss.
fn check(table: &Table, of: &BTreeMap<Role, usize>, with_loss: bool) -> Result<(), InputError> {
    let any = |roles: &[Role]| roles.iter().any(|r| of.contains_key(r));
    let missing = |role: Role, also| {
        let (path, columns) = (table.path.clone(), table.listed());
        Err(InputError::MissingColumn { path, role: role.name(), columns, also })
    };
    if with_loss && !any(&[Role::Loss, Role::TrainLoss]) {
        return missing(Role::Loss, "");
    }
    let params = any(&[Role::Params, Role::ParamsNonEmbedding]);
    let flops = any(&[Role::Flops, Role::Budget]);
    let tokens = any(&[Role::Tokens]);
    let also = " (two of params, tokens and flops are needed)";
    match (params, tokens, flops) {
        // Targets may be compute alone.
        (false, false, true) if !with_loss => Ok(()),
        (true, true, _) | (true, _, true) | (_, true, true) => Ok(()),
        (true, ..) => missing(Role::Tokens, also),
        (false, ..) => missing(Role::Params, also),
    }
}

/// The name of the layout for fit.json.
fn layout(has: &dyn Fn(&str) -> bool, mapped: bool) -> &'static str {
    let all = |names: &[&str]| names.iter().all(|n| has(n));
    match () {
        () if mapped => "mapped",
        () if all(&["id", "status", "params", "tokens", "flops", "flopsconvention"]) => "isoflop runs.csv",
        () if all(&["runname", "paramsactiveprecise", "finalloss"]) => "gemstones",
        () if all(&["run", "nparams", "c4enceloss"]) => "olmo ladder",
        () if has("modelsize") && has("trainingflop") => "Model Size, Training FLOP, loss",
        () if all(&["tokens", "params", "budget", "loss"]) => "tokens, params, budget, loss",
        () if all(&["c", "n", "d", "loss"]) => "C, N, D, loss",
        () if has("name") && has("step") => "weights and biases",
        () => "by name",
    }
}
