//! Runs on GPUs: the layout of each, from the plan for a cluster, and what the partitions allow that they are planned for.

use super::SlurmError;
use super::command::Slurm;
use super::probe::{self, Cluster};
use crate::cluster::estimate::ClusterPlan;
use crate::cluster::file::Cluster as Described;
use crate::file::SlurmSpec;
use crate::plan::{Plan, PlannedRun};
use crate::study::Study;
use isoflop_runtime::layout::{Divided, RunLayout};
use isoflop_runtime::rundir::RunDir;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The layouts of a study; none for runs on CPUs.
#[derive(Debug, Default)]
pub struct Layouts {
    runs: HashMap<String, RunLayout>,
    partitions: BTreeMap<String, Cluster>,
}

impl Layouts {
    /// Of a plan for a cluster: the chosen layout of every run. Runs for which none fits have none.
    pub fn of(plan: &Plan, on_cluster: &ClusterPlan, cluster: &Described) -> Layouts {
        let each = plan.runs.iter().zip(&on_cluster.runs);
        let runs = each.filter_map(|(run, planned)| {
            let e = planned.chosen.as_ref()?;
            let nodes = e.nodes.max(1);
            let layout = RunLayout {
                run: run.id.clone(),
                gpu: on_cluster.gpu.clone(),
                partition: cluster.has_partitions.then(|| e.partition.clone()),
                gpus: e.gpus,
                nodes,
                gpus_per_node: e.gpus.div_ceil(nodes),
                memory_bytes: e.memory.total() + cluster.reserve,
                gpu_memory_bytes: cluster.machine.memory_bytes as u64,
                step_seconds: e.calibrated_seconds.unwrap_or(e.step_seconds),
                divided: divided(run),
                layout: e.layout,
            };
            Some((run.id.clone(), layout))
        });
        Layouts { runs: runs.collect(), partitions: BTreeMap::new() }
    }

    /// Those that the run directories of a study hold.
    ///
    /// # Errors
    /// Where one is missing or cannot be read.
    pub fn read(study: &Study, plan: &Plan) -> Result<Layouts, SlurmError> {
        let mut layouts = Layouts::default();
        for run in plan.runs.iter().filter(|_| plan.cluster.is_some()) {
            layouts.runs.insert(run.id.clone(), RunLayout::read(&RunDir::new(study.run_dir(&run.id)))?);
        }
        Ok(layouts)
    }

    /// Writes each into its run directory, or checks that what is there says the same.
    ///
    /// # Errors
    /// Where it does not, or cannot be written.
    pub fn write(&self, study: &Study) -> Result<(), SlurmError> {
        for (id, layout) in &self.runs {
            layout.write(&RunDir::new(study.run_dir(id)))?;
        }
        Ok(study.sync()?)
    }

    /// Asks Slurm for the limits of every partition that a layout names.
    ///
    /// # Errors
    /// When it cannot be asked, or has no such partition.
    pub fn probe(mut self, slurm: &Slurm, spec: &SlurmSpec) -> Result<Layouts, SlurmError> {
        let names: BTreeSet<&String> = self.runs.values().filter_map(|l| l.partition.as_ref()).collect();
        for name in names {
            let spec = SlurmSpec { partition: Some(name.clone()), ..spec.clone() };
            self.partitions.insert(name.clone(), probe::probe(slurm, &spec)?);
        }
        Ok(self)
    }

    /// What jobs may be that no layout's partition is for: in the sweep's partition or the cluster's default. Where every
    /// layout names its partition there are none, and a cluster need not have a default; the partition of them that lets
    /// the fewest jobs be submitted stands for all.
    ///
    /// # Errors
    /// As [`Layouts::probe`], which comes first.
    pub fn usual(&self, slurm: &Slurm, spec: &SlurmSpec) -> Result<Cluster, SlurmError> {
        let fewest =
            self.partitions.values().min_by_key(|c| c.max_submit.as_ref().map_or(u64::MAX, |(n, _)| *n));
        match fewest.filter(|_| self.runs.values().all(|l| l.partition.is_some())) {
            Some(cluster) => Ok(cluster.clone()),
            None => probe::probe(slurm, spec),
        }
    }

    pub fn of_run(&self, id: &str) -> Option<&RunLayout> {
        self.runs.get(id)
    }

    /// What jobs may be in a partition that was asked for.
    pub fn partition(&self, name: &str) -> Option<&Cluster> {
        self.partitions.get(name)
    }
}

fn divided(run: &PlannedRun) -> Divided {
    let m = &run.model;
    Divided {
        n_layers: m.n_layers,
        n_heads: m.n_heads,
        d_ff: m.d_ff,
        vocab_size: m.vocab_size,
        batch: run.batch,
    }
}
