//! The text form of graphs: one canonical way to print, one parser that says what is wrong and where.
//!
//! ```text
//! graph @rms(%x: f32[64,128], %g: f32[128] {role=state, init=ones}) -> (f32[64,128]) {
//!   %2 = mul %x, %x : f32[64,128] @layers.0.norm1
//!   %3 = reduce_sum %2 {axes=[1]} : f32[64] @layers.0.norm1
//!   %4:2 = fused(%p0: f32[64] = %3) {
//!     %1 = rsqrt %p0 : f32[64]
//!     return r0 = %1, r1 = %p0
//!   } : (f32[64], f32[64])
//!   return y = %4#0, param.g = %g
//! }
//! ```
//!
//! * `%7` is the node whose id is 7, `%7#1` its second result (a node with one result is named without `#`), `%x` an
//!   input. Ids survive printing and parsing, so dumps of one graph before and after a pass can be compared by line.
//! * An input's id is its place in the signature unless it says `{id=9}`.
//! * `@word` at the end of a node or an input is its scope.
//! * Attributes stand in braces, named as the fields of `Op`. A number is written as the shortest decimal that reads
//!   back the same; `inf`, `-inf` and `nan` are numbers.
//! * Names that are not a letter or `_` followed by letters, digits, `_`, `.`, `-` stand in double quotes.
//! * `// ...` is a comment. Line ends mean nothing else.
//! * A result type may be left out where it follows from the operands; printing always says it.

mod attributes;
mod braces;
mod lex;
mod parse;
mod print;
mod resolve;
mod suggest;

pub use attributes::MNEMONICS;
pub use parse::{ParseError, parse, parse_all, parse_unverified};
pub(crate) use print::value_name;
pub use print::{any_layer, number, operation, print, print_node};
pub use suggest::nearest;

#[cfg(test)]
mod tests;
