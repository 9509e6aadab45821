//! From ordered steps to launches in waves: chains stay together, and generated kernels of one code in one wave become
//! one launch over many buffers, as the optimiser's updates do.

use super::chains::Link;
use super::step::Step;
use super::waves::Waves;
use isoflop_kernels::program::{Buffer, BufferId, Call, Chain, Launch};

/// The launches of these steps, whose arguments stand beside them, and the chains among them. `symbols` are those of the
/// kernels that `Generated` calls name.
pub fn of(
    steps: Vec<(Step, Vec<BufferId>)>,
    links: &[Link],
    buffers: &[Buffer],
    symbols: &[String],
) -> (Vec<Launch>, Vec<Chain>) {
    let mut waves = Waves::new(buffers);
    let mut links = links.iter().peekable();
    let mut steps = steps.into_iter().enumerate().peekable();
    let mut launches: Vec<Launch> = Vec::with_capacity(steps.len());
    let mut chains = Vec::new();
    while let Some(&(position, _)) = steps.peek() {
        let link = links.next_if(|l| l.first == position);
        let together: Vec<_> = steps.by_ref().take(link.map_or(1, |l| l.len)).collect();
        let args: Vec<BufferId> = together.iter().flat_map(|(_, (_, args))| args.iter().copied()).collect();
        let writes: Vec<bool> = together.iter().flat_map(|(_, (step, _))| step.writes.clone()).collect();
        let wave = waves.place(&args, &writes);
        if let Some(link) = link {
            chains.push(Chain {
                first: launches.len() as u32,
                launches: link.len as u32,
                rows: link.rows as u64,
                rows_per_task: link.rows_per_task as u64,
            });
        }
        for (_, (step, args)) in together {
            let Step { call, label, flops, .. } = step;
            let bytes = traffic(&args, buffers);
            launches.push(Launch { call, args, wave, label, flops, bytes });
        }
    }
    group(launches, chains, symbols)
}

/// Bytes of every distinct argument.
fn traffic(args: &[BufferId], buffers: &[Buffer]) -> u64 {
    let mut distinct = args.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    distinct.iter().map(|&b| buffers[b as usize].bytes()).sum()
}

/// Generated kernels of one symbol in one wave become one launch, where the first of them stood; members of chains
/// stay what they are.
fn group(launches: Vec<Launch>, mut chains: Vec<Chain>, symbols: &[String]) -> (Vec<Launch>, Vec<Chain>) {
    let mut chained = vec![false; launches.len()];
    chains.iter().for_each(|c| chained[c.members()].fill(true));
    let mut new_place = Vec::with_capacity(launches.len());
    let mut out: Vec<Launch> = Vec::with_capacity(launches.len());
    // Launches of the current wave that others may join.
    let mut open: Vec<(usize, u32)> = Vec::new();
    for (launch, in_chain) in launches.into_iter().zip(chained) {
        if out.last().is_some_and(|l| l.wave != launch.wave) {
            open.clear();
        }
        new_place.push(out.len() as u32);
        if let (Call::Generated { kernel }, false) = (&launch.call, in_chain) {
            let same = |&&(_, k): &&(usize, u32)| symbols[k as usize] == symbols[*kernel as usize];
            match open.iter().find(same) {
                Some(&(place, _)) => {
                    join(&mut out[place], launch);
                    continue;
                }
                None => open.push((out.len(), *kernel)),
            }
        }
        out.push(launch);
    }
    for chain in &mut chains {
        chain.first = new_place[chain.first as usize];
    }
    (out, chains)
}

fn join(into: &mut Launch, other: Launch) {
    let Call::Generated { kernel } = other.call else { return };
    match &mut into.call {
        Call::Grouped { kernels } => kernels.push(kernel),
        call => {
            if let Call::Generated { kernel: first } = *call {
                *call = Call::Grouped { kernels: vec![first, kernel] };
            }
        }
    }
    into.args.extend(other.args);
    into.bytes += other.bytes;
    // Layers and parameters differ, what is done does not.
    into.label = common(&into.label, &other.label);
}

/// What two labels have in common: `adamw` of `adamw.embed` and `adamw.norm_f`.
fn common(a: &str, b: &str) -> String {
    let same = a.split('.').zip(b.split('.')).take_while(|(x, y)| x == y).count();
    a.split('.').take(same.max(1)).collect::<Vec<_>>().join(".")
}
