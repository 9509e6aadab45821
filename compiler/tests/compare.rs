//! Dumps of kernels and their difference, on programs of small models and on dumps written by hand.

use isoflop_compiler::compare::{
    Change, Difference, Dump, DumpError, Kernel, KernelUse, MadeWith, difference,
};
use isoflop_compiler::config::{ModelConfig, StepConfig};
use isoflop_compiler::driver::{OptimizeOptions, plan_program_with};

fn made_with() -> MadeWith {
    MadeWith { device: "cpu".into(), disabled_passes: Vec::new(), target: None }
}

/// The dump of models of these widths.
fn dump(widths: &[usize], options: &OptimizeOptions) -> Dump {
    let mut dump = Dump::new(made_with());
    for &width in widths {
        let model = ModelConfig::gopher(2, 2, width / 2, width, 32, 16);
        let plan = plan_program_with(&model, &StepConfig::new(4), options).expect("a plan");
        dump.add(&format!("d{width}"), 4, &plan).expect("a name of its own");
    }
    dump
}

fn changes(d: &Difference, change: Change) -> usize {
    d.kernels.iter().filter(|k| k.change == change).count()
}

#[test]
fn a_dump_is_read_as_it_was_written_and_equals_itself() {
    let made = dump(&[8, 16], &OptimizeOptions::default());
    let text = made.to_text().expect("JSON");
    let read = Dump::parse(&text).expect("a dump");
    assert_eq!(read, made);
    assert_eq!(read.to_text().expect("JSON"), text);
    let found = difference(&made, &read);
    assert!(found.is_equal());
    assert_eq!((found.programs_compared, found.kernels_same), (4, made.kernels.len()));
}

#[test]
fn a_model_is_named_once() {
    let mut both = dump(&[8], &OptimizeOptions::default());
    let before = both.clone();
    let plan = |width| {
        let model = ModelConfig::gopher(2, 2, width / 2, width, 32, 16);
        plan_program_with(&model, &StepConfig::new(4), &OptimizeOptions::default()).expect("a plan")
    };
    both.add("d8", 4, &plan(8)).expect("the same again");
    assert_eq!(both, before);
    let refused = both.add("d8", 4, &plan(16));
    assert_eq!(refused, Err(DumpError::Ambiguous { name: "d8".into(), batch: 4 }));
}

#[test]
fn widths_are_kernels_of_their_own_that_change_in_the_same_way() {
    let default = OptimizeOptions::default();
    let mut without = OptimizeOptions::default();
    without.pipeline.disable = vec!["recompute".into()];
    let found = difference(&dump(&[8, 16, 32], &default), &dump(&[8, 16, 32], &without));
    let norm = |k: &&&isoflop_compiler::compare::KernelChange| {
        k.after.as_ref().is_some_and(|s| s.labels.contains(&"layers.*.norm2/grad".to_owned()))
    };
    let norms: Vec<_> = found.kernels.iter().filter(|k| norm(&k)).collect();
    assert_eq!(norms.len(), 3, "one for each width");
    let groups = found.groups();
    let group = groups.iter().find(|g| g.iter().any(|k| norm(&k))).expect("a group");
    assert_eq!(group.len(), 3, "{group:#?}");
    // Elementwise kernels have no width: one for all models, and said of all.
    let gelu = found.kernels.iter().find(|k| k.after.as_ref().is_some_and(|s| s.labels == ["layers.*.gelu"]));
    let programs: Vec<&str> = gelu.expect("gelu").programs.iter().map(|u| u.program.as_str()).collect();
    assert_eq!(programs, ["d8 batch 4 train", "d16 batch 4 train", "d32 batch 4 train"]);
}

#[test]
fn without_fusion_kernels_are_added_and_removed_and_nothing_is_lost() {
    let (fused, apart) =
        (OptimizeOptions::default(), OptimizeOptions { fuse: false, ..OptimizeOptions::default() });
    let (a, b) = (dump(&[16], &fused), dump(&[16], &apart));
    let found = difference(&a, &b);
    let both = found.kernels_same;
    let (changed, added, removed) =
        (changes(&found, Change::Changed), changes(&found, Change::Added), changes(&found, Change::Removed));
    assert_eq!(both + changed + removed, a.kernels.len());
    assert_eq!(both + changed + added, b.kernels.len());
    assert!(added > changed, "{added} added, {changed} changed");
    // The other way round the same kernels correspond.
    let back = difference(&b, &a);
    assert_eq!((changes(&back, Change::Added), changes(&back, Change::Removed)), (removed, added));
    let times = |d: &Difference, side: usize| -> u64 {
        d.kernels
            .iter()
            .filter(|k| k.change != Change::Used)
            .flat_map(|k| &k.programs)
            .map(|u| u.times[side])
            .sum()
    };
    assert_eq!((times(&found, 0), times(&found, 1)), (times(&back, 1), times(&back, 0)));
}

#[test]
fn models_of_one_dump_only_are_named_and_not_compared() {
    let options = OptimizeOptions::default();
    let found = difference(&dump(&[8, 16], &options), &dump(&[16, 32], &options));
    assert_eq!(found.only_before, ["d8 batch 4 train", "d8 batch 4 eval"]);
    assert_eq!(found.only_after, ["d32 batch 4 train", "d32 batch 4 eval"]);
    assert!(found.kernels.is_empty() && found.programs.is_empty() && !found.is_equal());
}

/// A kernel that multiplies by `factor`.
fn scale(id: &str, factor: &str) -> Kernel {
    let body =
        ["elements", "in0: f32", &format!("%mul0 = mul in0, {factor} : element f32"), "return %mul0 : f32"];
    let body = body.iter().map(|l| (*l).to_owned()).collect();
    Kernel { id: id.into(), kind: "flat".into(), body, mlir: vec![format!("mulf {factor}")], code: None }
}

/// A dump of one program, which runs these kernels once each at these labels.
fn by_hand(kernels: Vec<(Kernel, &str)>) -> Dump {
    let mut made = dump(&[8], &OptimizeOptions::default());
    made.programs.truncate(1);
    made.programs[0].kernels = kernels
        .iter()
        .map(|(kernel, label)| KernelUse {
            kernel: kernel.id.clone(),
            times: 1,
            rows: 1,
            bytes_read: 4,
            bytes_written: 4,
            labels: vec![(*label).to_owned()],
        })
        .collect();
    made.kernels = kernels.into_iter().map(|(kernel, _)| kernel).collect();
    made
}

#[test]
fn kernels_at_one_label_are_matched_in_their_order() {
    let before = by_hand(vec![(scale("a", "2.0"), "clip"), (scale("b", "3.0"), "clip")]);
    let after = by_hand(vec![(scale("c", "2.5"), "clip"), (scale("d", "3.5"), "clip")]);
    let found = difference(&before, &after);
    let pairs: Vec<(&str, &str)> = found
        .kernels
        .iter()
        .filter_map(|k| Some((k.before.as_ref()?.id.as_str(), k.after.as_ref()?.id.as_str())))
        .collect();
    assert_eq!(pairs, [("a", "c"), ("b", "d")]);
    assert!(found.kernels[0].body.contains("-%mul0 = mul in0, 2.0 : element f32\n+%mul0 = mul in0, 2.5"));
    assert_eq!(found.groups().len(), 1, "they differ in a number alone");
}

#[test]
fn a_label_decides_before_likeness_does() {
    let before = by_hand(vec![(scale("a", "2.0"), "clip"), (scale("b", "3.0"), "adamw")]);
    let after = by_hand(vec![(scale("c", "3.5"), "adamw"), (scale("d", "2.5"), "loss")]);
    let found = difference(&before, &after);
    let ids = |change| -> Vec<Option<&str>> {
        let of = found.kernels.iter().filter(|k| k.change == change);
        of.map(|k| k.before.as_ref().or(k.after.as_ref()).map(|s| s.id.as_str())).collect()
    };
    assert_eq!(ids(Change::Changed), [Some("b")]);
    assert_eq!((ids(Change::Removed), ids(Change::Added)), (vec![Some("a")], vec![Some("d")]));
}

#[test]
fn another_lowering_of_the_same_operations_is_a_change() {
    let before = by_hand(vec![(scale("a", "2.0"), "clip")]);
    let mut other = scale("b", "2.0");
    other.mlir = vec!["addf".into()];
    let found = difference(&before, &by_hand(vec![(other, "clip")]));
    let [kernel] = &found.kernels[..] else { panic!("one kernel differs: {found:#?}") };
    assert_eq!((kernel.change, kernel.body.as_str()), (Change::Changed, ""));
    assert!(kernel.mlir.contains("-mulf 2.0\n+addf\n"), "{}", kernel.mlir);
}

#[test]
fn what_is_no_dump_is_refused() {
    let refused = |text: &str| Dump::parse(text).expect_err("refused");
    assert!(matches!(refused("not JSON"), DumpError::NoDump(_)));
    assert!(matches!(refused("{}"), DumpError::NoDump(_)));
    assert_eq!(refused("{\"format\": 0}"), DumpError::Format { found: 0 });
    let mut torn = by_hand(vec![(scale("a", "2.0"), "clip")]);
    torn.kernels.clear();
    let text = torn.to_text().expect("JSON");
    assert_eq!(refused(&text), DumpError::NoDump("a program runs `a`, which it does not hold".into()));
}
