//! One attempt at a run: the loop over its steps, and what it writes on the way.

use super::{Outcome, TrainError};
use crate::checkpoint::{self, Meta, Tensor};
use crate::config::RunConfig;
use crate::data::{Corpus, Sampler, Validation};
use crate::exec::Executor;
use crate::lease::Lease;
use crate::memory;
use crate::metrics::{self, Metrics, Position, Row};
use crate::profile::{self, PROFILED_STEP};
use crate::rundir::{RunDir, sweep_temporary};
use crate::status::{MemoryStatus, RunStatus, State};
use crate::tensorboard::EventWriter;
use isoflop_kernels::DType;
use isoflop_kernels::artifact::Artifact;
use isoflop_kernels::footprint::{Base, Footprint};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Least time between two writes of `status.json` while nothing but progress changes.
const STATUS_INTERVAL: Duration = Duration::from_millis(250);

/// A name for all that decides the numbers of a run apart from the artifact. The rest (the run's id, paths, threads,
/// how often is saved) is left out: it may change between two starts.
fn config_hash(config: &RunConfig, data: &[blake3::Hash]) -> String {
    let mut config = config.clone();
    (config.id, config.artifact) = (String::new(), PathBuf::new());
    (config.threads, config.checkpoint_every, config.peak_flops) = (1, 1, None);
    (config.keep_checkpoints, config.diverged_above, config.tensorboard) = (1, 0.0, false);
    (config.data.train, config.data.validation) = (Vec::new(), Vec::new());
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{config:?}").as_bytes());
    for hash in data {
        hasher.update(hash.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// Compares the inputs of `program` with what the configuration will put in.
fn check_shapes(artifact: &Artifact, program: &'static str, config: &RunConfig) -> Result<(), TrainError> {
    let expected = [config.batch, config.seq_len];
    let error = |found: String| TrainError::Mismatch {
        path: artifact.dir.clone(),
        program,
        found,
        expected: format!("inputs `tokens` and `targets` of shape {expected:?}"),
    };
    let found = artifact.program(program).ok_or_else(|| error("is missing".into()))?;
    for name in ["tokens", "targets"] {
        match found.buffer(name) {
            Some((_, buffer)) if buffer.shape == expected => {}
            Some((_, buffer)) => return Err(error(format!("takes `{name}` of shape {:?}", buffer.shape))),
            None => return Err(error(format!("has no input `{name}`"))),
        }
    }
    Ok(())
}

/// One attempt at a run, from taking it to its end or the next stop.
pub(super) struct Attempt<'a> {
    run: &'a RunDir,
    config: &'a RunConfig,
    lease: &'a Lease,
    status: &'a mut RunStatus,
    progress: &'a mut dyn FnMut(&RunStatus),
    executor: Executor,
    artifact_hash: String,
    config_hash: String,
    sampler: Sampler,
    validation: Option<Validation>,
    metrics: Metrics,
    events: Option<EventWriter>,
    /// `tokens` and `targets` of a step, [batch, seq_len].
    tokens: Vec<i32>,
    targets: Vec<i32>,
    /// Step of the newest checkpoint; none before the first.
    saved: Option<u64>,
    clock: Clock,
}

/// What an attempt begins with.
pub(super) struct Start<'a> {
    pub run: &'a RunDir,
    pub config: &'a RunConfig,
    pub lease: &'a Lease,
    /// Instead of the configuration's number.
    pub threads: Option<usize>,
    /// As in [`super::Options`].
    pub base: Base,
}

/// When this attempt began, and the last marks that speeds are measured from.
struct Clock {
    began: Instant,
    status: (Instant, u64),
    row: (Instant, u64),
}

impl<'a> Attempt<'a> {
    /// Opens everything and takes up the newest whole checkpoint, or the initial weights.
    pub(super) fn start(
        start: Start<'a>,
        status: &'a mut RunStatus,
        progress: &'a mut dyn FnMut(&RunStatus),
        warn: &mut dyn FnMut(&str),
    ) -> Result<Attempt<'a>, TrainError> {
        let Start { run, config, lease, threads, base } = start;
        let resolve = |paths: &[PathBuf]| paths.iter().map(|p| run.resolve(p)).collect::<Vec<_>>();
        let artifact = Artifact::open(&run.resolve(&config.artifact))?;
        let mut executor = Executor::load(&artifact, threads.unwrap_or(config.threads))?;
        status.memory = Some(MemoryStatus {
            planned_bytes: Footprint::of(&artifact.programs, base).peak(executor.threads()),
            planned_file_bytes: base.files,
            peak_bytes: None,
            file_bytes: None,
        });
        let validates = config.data.validation_sequences > 0;
        check_shapes(&artifact, "train", config)?;
        if validates {
            check_shapes(&artifact, "eval", config)?;
        }
        let corpus = Corpus::open(&resolve(&config.data.train), config.vocab_size)?;
        let sampler = Sampler::new(corpus, config.seed, config.batch, config.seq_len)?;
        let mut data = vec![sampler.corpus().fingerprint()];
        let mut validation = None;
        if validates {
            let corpus = Corpus::open(&resolve(&config.data.validation), config.vocab_size)?;
            data.push(corpus.fingerprint());
            let sequences = config.data.validation_sequences;
            validation = Some(Validation::new(corpus, sequences, config.batch, config.seq_len)?);
        }
        let epochs = sampler.epochs(config.steps);
        if epochs > 1.0 {
            warn(&format!(
                "the run sees its {} training tokens {epochs:.2} times; scaling fits assume tokens that are new: \
                 prepare more text or plan fewer tokens",
                sampler.corpus().count()
            ));
        }

        let (artifact_hash, config_hash) = (artifact.manifest.hash, config_hash(config, &data));
        let mut warnings = Vec::new();
        let loaded = checkpoint::load_newest(&run.checkpoints(), &mut warnings)?;
        let mut from = Position { step: 0, rows: 0, loss_sum: 0.0, loss_count: 0 };
        (status.step, status.tokens, status.train_loss, status.validation_loss) = (0, 0, None, None);
        match &loaded {
            None => executor.init_state(config.seed)?,
            Some(checkpoint) => {
                checkpoint.belongs_to(&artifact_hash, &config_hash)?;
                let names: Vec<String> = executor.state_names().into_iter().map(String::from).collect();
                for name in &names {
                    checkpoint.read_into(name, bytemuck::cast_slice_mut(executor.state_mut(name)?))?;
                }
                let meta = &checkpoint.meta;
                from = Position {
                    step: meta.step,
                    rows: meta.metrics_rows,
                    loss_sum: meta.loss_sum,
                    loss_count: meta.loss_count,
                };
                (status.step, status.tokens) = (meta.step, meta.tokens);
                (status.train_loss, status.validation_loss) = (meta.train_loss, meta.validation_loss);
            }
        }
        lease.check()?;
        sweep_temporary(run.root())?;
        let metrics = Metrics::open(run, config, from, &mut warnings)?;
        warnings.iter().for_each(|w| warn(w));
        let events = match config.tensorboard {
            true => Some(EventWriter::create(&run.tensorboard(), lease.owner().epoch, from.step + 1)?),
            false => None,
        };
        let now = Instant::now();
        let mut attempt = Attempt {
            run,
            config,
            lease,
            status,
            progress,
            executor,
            artifact_hash,
            config_hash,
            sampler,
            validation,
            metrics,
            events,
            tokens: vec![0; config.batch * config.seq_len],
            targets: vec![0; config.batch * config.seq_len],
            saved: loaded.map(|c| c.meta.step),
            clock: Clock { began: now, status: (now, from.step), row: (now, from.step) },
        };
        attempt.enter(State::Running, None)?;
        Ok(attempt)
    }

    pub(super) fn run(
        mut self,
        stop: &AtomicBool,
        stop_after_steps: Option<u64>,
    ) -> Result<Outcome, TrainError> {
        let steps = self.config.steps;
        let stop_at = stop_after_steps.map_or(steps, |n| self.status.step.saturating_add(n));
        let every = metrics::row_every(steps);
        while self.status.step < steps {
            if stop.load(Ordering::Relaxed) || self.status.step >= stop_at {
                self.save()?;
                self.enter(State::Interrupted, None)?;
                return Ok(Outcome::Interrupted);
            }
            let (loss, grad_norm) = self.step()?;
            let done = self.status.step;
            if let Some(reason) = self.divergence("train loss", f64::from(loss)) {
                return self.diverge(reason);
            }
            if !grad_norm.is_finite() {
                return self.diverge(format!("grad_norm of step {done} is {grad_norm}"));
            }
            self.metrics.add(loss);
            let last = done == steps;
            let due = last || done.is_multiple_of(self.config.validate_every);
            let validation_loss = if due { self.validate()? } else { None };
            if let Some(reason) = validation_loss.and_then(|loss| self.divergence("validation loss", loss)) {
                return self.diverge(reason);
            }
            if last || validation_loss.is_some() || done.is_multiple_of(every) {
                self.write_row(validation_loss, grad_norm)?;
            }
            if last || done.is_multiple_of(self.config.checkpoint_every) {
                self.save()?;
            }
            if self.clock.status.0.elapsed() >= STATUS_INTERVAL {
                self.write_status(false)?;
            }
        }
        // A run that was killed between its last checkpoint and its last status.
        self.save()?;
        self.enter(State::Finished, None)?;
        Ok(Outcome::Finished)
    }

    /// Runs the next optimiser step; returns its loss in nats per token and its gradient norm.
    fn step(&mut self) -> Result<(f32, f32), TrainError> {
        let (step, vocab_size) = (self.status.step, self.config.vocab_size);
        self.sampler.fill(step, &mut self.tokens, &mut self.targets)?;
        let t = (step + 1) as f64;
        let [beta1, beta2] = self.config.betas;
        let lr = self.config.schedule.lr_at(step, self.config.steps);
        self.executor.set_input_i32("tokens", &self.tokens, vocab_size)?;
        self.executor.set_input_i32("targets", &self.targets, vocab_size)?;
        self.executor.set_input_f32("lr", &[lr as f32])?;
        self.executor.set_input_f32("bias_correction1", &[(1.0 - beta1.powf(t)) as f32])?;
        self.executor.set_input_f32("bias_correction2", &[(1.0 - beta2.powf(t)) as f32])?;
        if step + 1 == PROFILED_STEP {
            let times = self.executor.profile("train")?;
            self.lease.check()?;
            profile::write(&self.run.profile(), &times, self.executor.threads())?;
        } else {
            self.executor.run("train")?;
        }
        let (loss, grad_norm) = (self.scalar("loss")?, self.scalar("grad_norm")?);
        self.status.step += 1;
        self.status.tokens += self.tokens.len() as u64;
        self.status.train_loss = Some(f64::from(loss));
        Ok((loss, grad_norm))
    }

    /// A scalar output of the program run last.
    fn scalar(&self, name: &str) -> Result<f32, TrainError> {
        Ok(self.executor.read_f32(name)?[0])
    }

    /// Mean loss over the validation data in nats per token, where there are such data.
    fn validate(&mut self) -> Result<Option<f64>, TrainError> {
        let Some(validation) = &self.validation else { return Ok(None) };
        let vocab_size = self.config.vocab_size;
        let mut sum = 0.0;
        let batches = validation.batches();
        for index in 0..batches {
            validation.fill(index, &mut self.tokens, &mut self.targets)?;
            self.executor.set_input_i32("tokens", &self.tokens, vocab_size)?;
            self.executor.set_input_i32("targets", &self.targets, vocab_size)?;
            self.executor.run("eval")?;
            sum += f64::from(self.scalar("loss")?);
        }
        let loss = sum / batches as f64;
        self.status.validation_loss = Some(loss);
        Ok(Some(loss))
    }

    fn divergence(&self, what: &str, loss: f64) -> Option<String> {
        let (step, limit) = (self.status.step, self.config.diverged_above);
        if !loss.is_finite() {
            Some(format!("{what} of step {step} is {loss}"))
        } else if loss > limit {
            Some(format!("{what} of step {step} is {loss}, above diverged_above = {limit}"))
        } else {
            None
        }
    }

    fn diverge(mut self, reason: String) -> Result<Outcome, TrainError> {
        for loss in [&mut self.status.train_loss, &mut self.status.validation_loss] {
            // JSON has no NaN: the reason tells it.
            *loss = loss.filter(|l| l.is_finite());
        }
        self.enter(State::Diverged, Some(reason))?;
        Ok(Outcome::Diverged { step: self.status.step })
    }

    fn write_row(&mut self, validation_loss: Option<f64>, grad_norm: f32) -> Result<(), TrainError> {
        let RunStatus { step, tokens, .. } = *self.status;
        let row = Row {
            step,
            tokens,
            flops: self.config.flops_per_token * tokens as f64,
            train_loss: self.metrics.mean_loss(),
            validation_loss,
            lr: self.config.schedule.lr_at(step - 1, self.config.steps),
            grad_norm,
        };
        self.lease.check()?;
        self.metrics.write(&row)?;
        let wall_s = self.clock.began.elapsed().as_secs_f64();
        let speed = self.speed_since(self.clock.row);
        self.clock.row = (Instant::now(), step);
        let peak = self.config.peak_flops.map(|p| p * self.executor.threads() as f64);
        let mfu = peak.map(|peak| self.config.flops_per_token * speed / peak);
        self.metrics.write_timing(step, wall_s, speed, mfu, self.lease.owner().epoch)?;
        if let Some(events) = &mut self.events {
            let mut scalars = vec![
                ("loss/train", row.train_loss as f32),
                ("lr", row.lr as f32),
                ("grad_norm", grad_norm),
                ("tokens_per_s", speed as f32),
            ];
            scalars.extend(validation_loss.map(|loss| ("loss/validation", loss as f32)));
            events.scalars(step, &scalars)?;
        }
        Ok(())
    }

    /// Tokens per second since a mark.
    fn speed_since(&self, (time, step): (Instant, u64)) -> f64 {
        let tokens = (self.status.step - step) as f64 * self.tokens.len() as f64;
        tokens / time.elapsed().as_secs_f64().max(1e-9)
    }

    /// Writes a checkpoint of the step done last, unless it is there already.
    fn save(&mut self) -> Result<(), TrainError> {
        let step = self.status.step;
        if self.saved == Some(step) {
            return Ok(());
        }
        let began = Instant::now();
        self.lease.check()?;
        let position = self.metrics.sync(step)?;
        let meta = Meta {
            version: checkpoint::VERSION,
            step,
            tokens: self.status.tokens,
            sequences: step * self.config.batch as u64,
            seed: self.config.seed,
            artifact: self.artifact_hash.clone(),
            config: self.config_hash.clone(),
            loss_sum: position.loss_sum,
            loss_count: position.loss_count,
            metrics_rows: position.rows,
            train_loss: self.status.train_loss,
            validation_loss: self.status.validation_loss,
            blake3: String::new(),
        };
        let names = self.executor.state_names();
        let mut tensors = Vec::with_capacity(names.len());
        for name in names {
            let bytes = bytemuck::cast_slice(self.executor.state(name)?);
            let shape = self.executor.shape(name).unwrap_or_default();
            tensors.push(Tensor { name, dtype: DType::F32, shape, bytes });
        }
        checkpoint::save(&self.run.checkpoints(), meta, tensors.into_iter(), self.config.keep_checkpoints)?;
        self.saved = Some(step);
        let (took, longest) = (began.elapsed().as_secs_f64(), self.status.save_seconds.unwrap_or(0.0));
        self.status.save_seconds = Some((longest.max(took) * 1e6).round() / 1e6);
        Ok(())
    }

    /// Changes the state and waits until the change is on the disk.
    fn enter(&mut self, state: State, reason: Option<String>) -> Result<(), TrainError> {
        (self.status.state, self.status.reason) = (state, reason);
        self.write_status(true)
    }

    fn write_status(&mut self, durable: bool) -> Result<(), TrainError> {
        if self.status.step > self.clock.status.1 {
            self.status.tokens_per_s = self.speed_since(self.clock.status);
        }
        self.clock.status = (Instant::now(), self.status.step);
        if let (Some(status), Some(found)) = (&mut self.status.memory, memory::resident()) {
            (status.peak_bytes, status.file_bytes) = (Some(found.peak), Some(found.files));
        }
        self.lease.check()?;
        self.run.write_status(self.status, durable)?;
        (self.progress)(self.status);
        Ok(())
    }
}
