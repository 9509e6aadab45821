//! What ptxas makes of every generated kernel of the Gopher and nano sizes, as a table: tests/golden/ptx_kernels.csv. No GPU
//! is needed. A kernel that spills, or that loses its wide accesses, shows here.
//!
//! `BLESS=1 cargo test --release -p isoflop-sweeps --test ptx_kernels` writes what was found.
#![cfg(feature = "mlir")]

use isoflop_compiler::config::StepConfig;
use isoflop_compiler::cost::CostModel;
use isoflop_compiler::driver::{OptimizeOptions, compile_ptx, plan_program_with};
use isoflop_compiler::lower::{Lowered, lower_for};
use isoflop_compiler::machine::{Arch, Cuda, Machine};
use isoflop_compiler::mlir::{self, CUDA_HOME};
use isoflop_compiler::ptx;
use isoflop_kernels::program::Call;
use isoflop_sweeps::device::Device;
use isoflop_sweeps::family::FamilyName;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const HEADER: &str = "kernel,arch,used_by,registers,spilled_bytes,shared_bytes,loads,loads_of_16_bytes,stores,stores_of_16_bytes";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The assembler that `scripts/setup.sh` fetched, where no other is named.
fn ptxas() -> PathBuf {
    match std::env::var_os(CUDA_HOME) {
        Some(_) => mlir::ptxas(),
        None => mlir::ptxas_below(&root().join("third_party/cuda")).unwrap_or_else(mlir::ptxas),
    }
}

/// Training steps of all sizes for this architecture, fused by the costs of its device.
fn programs(arch: Arch, device: &str) -> Vec<Lowered> {
    let device = Device::built_in(device).expect("a device");
    let cost: CostModel = device.cost(1);
    let machine = Machine::Cuda(Cuda { arch, multiprocessors: device.cores });
    let sizes = [FamilyName::Gopher, FamilyName::Nano].map(|f| f.sizes(&f.base()));
    let program = |model| {
        let options = OptimizeOptions { cost: cost.clone(), ..OptimizeOptions::default() };
        let plan = plan_program_with(model, &StepConfig::new(8), &options).expect("a plan");
        lower_for(&plan.fused, &machine).expect("a program")
    };
    sizes.iter().flatten().map(|s| program(&s.model)).collect()
}

/// What the first launch of each kernel is for.
fn labels(programs: &[Lowered]) -> BTreeMap<&str, String> {
    let mut found = BTreeMap::new();
    for p in programs.iter().map(|l| &l.program) {
        for launch in &p.launches {
            let kernels = match &launch.call {
                Call::Generated { kernel } => std::slice::from_ref(kernel),
                Call::Grouped { kernels } => kernels,
                _ => continue,
            };
            for &k in kernels {
                let label = isoflop_compiler::text::any_layer(&launch.label);
                found.entry(p.kernels[k as usize].symbol.as_str()).or_insert(label);
            }
        }
    }
    found
}

/// The table's rows for one architecture.
fn rows(arch: Arch, device: &str, cache: &Path) -> Vec<String> {
    let programs = programs(arch, device);
    let labels = labels(&programs);
    let all: Vec<&Lowered> = programs.iter().collect();
    let kernels = compile_ptx(&all, arch, cache, 2).expect("PTX");
    let module = ptx::join(kernels.iter().map(|k| k.ptx.as_str()));
    let assembled = mlir::assemble(&module, arch, &ptxas()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(assembled.kernels.len(), kernels.len());
    let row = |k: &isoflop_compiler::driver::PtxKernel| {
        let r = assembled.kernels.iter().find(|r| r.kernel == k.symbol).expect("assembled");
        let a = ptx::accesses(&k.ptx);
        let spilled = r.spill_stores + r.spill_loads;
        assert_eq!(spilled, 0, "{} spills on {arch}", k.symbol);
        let used_by = labels.get(k.symbol.as_str()).expect("a launch");
        format!(
            "{},{arch},{used_by},{},{spilled},{},{},{},{},{}",
            k.symbol, r.registers, r.shared_memory, a.loads, a.wide_loads, a.stores, a.wide_stores
        )
    };
    kernels.iter().map(row).collect()
}

#[test]
fn every_kernel_needs_what_the_table_says_and_none_spills() {
    let cache = tempfile::tempdir().expect("a folder");
    let mut found = vec![HEADER.to_owned()];
    for (arch, device) in [(Arch::Sm80, "a100-80g"), (Arch::Sm90, "h100-sxm")] {
        found.extend(rows(arch, device, cache.path()));
    }
    let path = root().join("tests/golden/ptx_kernels.csv");
    let text = found.join("\n") + "\n";
    if std::env::var_os("BLESS").is_some_and(|v| v == "1") {
        std::fs::write(&path, &text).expect("written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = |a: &str, b: &str| -> Vec<String> {
        a.lines().filter(|line| b.lines().all(|other| other != *line)).map(str::to_owned).collect()
    };
    let (gone, new) = (differs(&expected, &text), differs(&text, &expected));
    assert!(
        gone.is_empty() && new.is_empty(),
        "tests/golden/ptx_kernels.csv says\n{}\nand found is\n{}\nIf that is meant: BLESS=1 cargo test --release -p \
         isoflop-sweeps --test ptx_kernels",
        gone.join("\n"),
        new.join("\n")
    );
    assert!(found.len() > 150, "{} kernels", found.len());
}
