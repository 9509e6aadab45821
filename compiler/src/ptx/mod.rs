//! PTX, the text that a GPU's driver takes: modules put together, accesses counted, and kernels executed without a GPU.

mod arithmetic;
mod execute;
mod memory;
mod op;
mod parse;
#[cfg(test)]
mod tests;

pub use execute::{Arg, Fault};
pub use parse::{Kernel, ParseError, parse};

/// One module of several, each of one kernel, for the same architecture. Without modules it is empty.
///
/// LLVM writes a head of comments, version, target and address size; the first one's serves for all.
pub fn join<'a>(modules: impl IntoIterator<Item = &'a str>) -> String {
    const LAST_OF_HEAD: &str = ".address_size 64\n";
    let mut out = String::new();
    for module in modules {
        let end = module.find(LAST_OF_HEAD).map_or(0, |at| at + LAST_OF_HEAD.len());
        let (head, body) = module.split_at(end);
        if out.is_empty() {
            out.push_str(head);
        }
        out.push_str(body);
    }
    out
}

/// Accesses to global memory in a kernel's instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accesses {
    pub loads: usize,
    /// Of these, of 16 bytes.
    pub wide_loads: usize,
    pub stores: usize,
    pub wide_stores: usize,
}

/// The accesses in the PTX of one kernel.
pub fn accesses(module: &str) -> Accesses {
    let mut found = Accesses::default();
    for line in module.lines() {
        // A predicate may stand before.
        let words = line.split_whitespace().skip_while(|w| w.starts_with('@'));
        let Some(name) = words.into_iter().next() else { continue };
        let wide = usize::from(bytes(name) == 16);
        if name.starts_with("ld.global") {
            found.loads += 1;
            found.wide_loads += wide;
        } else if name.starts_with("st.global") {
            found.stores += 1;
            found.wide_stores += wide;
        }
    }
    found
}

/// Bytes that an access moves, by the end of its name: `.v4.b32` are 16.
fn bytes(name: &str) -> usize {
    let mut parts = name.rsplit('.');
    let element = parts.next().and_then(|t| t.get(1..)?.parse::<usize>().ok()).unwrap_or(0) / 8;
    let lanes = parts.next().and_then(|v| v.strip_prefix('v')?.parse().ok()).unwrap_or(1);
    element * lanes
}
