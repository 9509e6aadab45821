//! Facts about the machine code of kernels, counted in LLVM's assembly.

use super::{Code, Dump};
use crate::cache::ObjectCache;
use crate::driver::CompileError;
use crate::mlir::{self, Emit, MlirError, Target};
use object::{Object, ObjectSection, SectionKind};
use std::path::Path;

impl Dump {
    /// Compiles every kernel for `target` and notes what came out. Objects are kept in the folder `cache`.
    ///
    /// # Errors
    /// When a kernel does not compile, or the cache cannot be made.
    pub fn add_code(&mut self, target: &Target, cache: &Path, threads: usize) -> Result<(), CompileError> {
        let texts: Vec<String> = self.kernels.iter().map(|k| k.mlir.join("\n") + "\n").collect();
        let (objects, _) = ObjectCache::open(cache, target)?.objects(&texts, threads)?;
        let assembly = mlir::compile_all(&texts, target, Emit::Asm, threads);
        for ((kernel, asm), object) in self.kernels.iter_mut().zip(assembly).zip(objects) {
            let asm = asm?;
            let counts = counts(asm.text().unwrap_or_default(), target.triple.starts_with("aarch64"));
            kernel.code = Some(Code { bytes: code_bytes(&object)?, ..counts });
        }
        self.made_with.target = Some(target.to_string());
        Ok(())
    }
}

/// Bytes of the sections that hold code.
fn code_bytes(object: &[u8]) -> Result<u64, MlirError> {
    let file = object::File::parse(object).map_err(|e| MlirError::Io {
        path: "the object of a kernel".into(),
        source: std::io::Error::new(std::io::ErrorKind::InvalidData, e),
    })?;
    Ok(file.sections().filter(|s| s.kind() == SectionKind::Text).map(|s| s.size()).sum())
}

fn counts(assembly: &str, arm: bool) -> Code {
    let mut code = Code::default();
    // Instructions are indented; directives begin with a point, labels with no space.
    let instructions = assembly.lines().filter_map(|l| l.strip_prefix('\t')).filter(|l| !l.starts_with('.'));
    for instruction in instructions {
        let (name, operands) = instruction.split_once(['\t', ' ']).unwrap_or((instruction, ""));
        // Comments of the assembly are no instructions.
        if name.is_empty() || name.starts_with(['#', '/']) {
            continue;
        }
        code.instructions += 1;
        match if arm { of_arm(operands) } else { of_x86(name, operands) } {
            Some(true) => code.vector += 1,
            Some(false) => code.scalar += 1,
            None => {}
        }
        let fma = if arm {
            ["fmla", "fmls", "fmadd", "fmsub", "fnmadd", "fnmsub"].contains(&name)
        } else {
            ["vfmadd", "vfmsub", "vfnmadd", "vfnmsub"].iter().any(|f| name.starts_with(f))
        };
        code.fma += u64::from(fma);
    }
    code
}

/// Whether an instruction works on a whole vector register; none where on none. Integers stand in general registers.
fn of_x86(name: &str, operands: &str) -> Option<bool> {
    if !["%xmm", "%ymm", "%zmm"].iter().any(|register| operands.contains(register)) {
        return None;
    }
    let integer = name.starts_with("vp") || name.starts_with('p');
    let one = ["ss", "sd"].iter().any(|end| name.ends_with(end));
    let converts = ["ss2", "sd2"].iter().any(|from| name.contains(from));
    let moves = ["movd", "vmovd", "movq", "vmovq"].contains(&name);
    Some(!(moves || !integer && (one || converts)))
}

fn of_arm(operands: &str) -> Option<bool> {
    let registers = || operands.split([',', ' ', '[', ']', '{', '}']).filter(|r| !r.is_empty());
    let is = |register: &str, letter: char| {
        let number = register.strip_prefix(letter).map(|r| r.split('.').next().unwrap_or(r));
        number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    if registers().any(|r| is(r, 'v') || is(r, 'q')) {
        return Some(true);
    }
    registers().any(|r| is(r, 's') || is(r, 'd') || is(r, 'h')).then_some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_told_apart() {
        let x86 = "f:\n\t.p2align\t4\n\tcmpq\t%rcx, %rdx\n\tvaddps\t(%rdi,%rdx,4), %xmm0, %xmm0\n\
                   \tvaddss\t%xmm1, %xmm0, %xmm0\n\tvmovss\t%xmm0, (%rsi)\n\tvfmadd231ps\t%zmm1, %zmm2, %zmm0\n\
                   \tvpabsd\t%ymm0, %ymm0\n\tvcvttss2si\t%xmm0, %eax\n\tvmovd\t%eax, %xmm0\n.L1:\n\tretq\n";
        let found = counts(x86, false);
        assert_eq!(found, Code { instructions: 9, vector: 3, scalar: 4, fma: 1, bytes: 0 });
        let arm = "f:\n\tcmp\tx0, x1\n\tldp\tq0, q1, [x0]\n\tfmla\tv0.4s, v1.4s, v2.4s\n\tfmadd\ts0, s1, s2, s3\n\
                   \tfadd\td0, d0, d1\n\tret\n";
        let found = counts(arm, true);
        assert_eq!(found, Code { instructions: 6, vector: 2, scalar: 2, fma: 2, bytes: 0 });
    }
}
