//! Tensor types: an element type and a shape.

use isoflop_kernels::DType;
use smallvec::SmallVec;
use std::fmt;

/// Extents of the axes, outermost first. Empty for a scalar.
pub type Shape = SmallVec<[usize; 4]>;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TensorType {
    pub dtype: DType,
    pub shape: Shape,
}

impl TensorType {
    pub fn new(dtype: DType, shape: &[usize]) -> Self {
        TensorType { dtype, shape: Shape::from_slice(shape) }
    }

    pub fn f32(shape: &[usize]) -> Self {
        Self::new(DType::F32, shape)
    }

    pub fn i32(shape: &[usize]) -> Self {
        Self::new(DType::I32, shape)
    }

    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn bytes(&self) -> u64 {
        self.elements() as u64 * self.dtype.bytes() as u64
    }
}

/// As in the text form: `f32[64,128]`, `i32[]`.
impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        for (k, n) in self.shape.iter().enumerate() {
            write!(f, "{}{n}", if k > 0 { "," } else { "" })?;
        }
        f.write_str("]")
    }
}
