//! Counting and joining, and the executor on kernels written by hand.

use super::*;

#[test]
fn wide_accesses_are_those_of_16_bytes() {
    let module = "\tld.global.nc.v4.b32 \t{%r1, %r2, %r3, %r4}, [%rd1];\n\tld.global.v2.b64 \t{%d1, %d2}, [%rd1];\n\
                  \tld.global.b32 \t%r5, [%rd2];\n\tld.shared.v4.b32 \t{%r1, %r2, %r3, %r4}, [%rd1];\n\
                  \t@%p1 st.global.v4.b32 \t[%rd3], {%r1, %r2, %r3, %r4};\n\tst.global.v2.b32 \t[%rd3], {%r1, %r2};\n";
    let expected = Accesses { loads: 3, wide_loads: 2, stores: 2, wide_stores: 1 };
    assert_eq!(accesses(module), expected);
}

#[test]
fn joined_modules_have_one_head() {
    let head = "// made by LLVM\n.version 8.0\n.target sm_90\n.address_size 64\n";
    let [a, b] = ["\n.visible .entry a()\n{\n}\n", "\n.visible .entry b()\n{\n}\n"];
    let joined = join([format!("{head}{a}").as_str(), &format!("{head}{b}")]);
    assert_eq!(joined, format!("{head}{a}{b}"));
    assert_eq!(join([]), "");
}

/// A kernel of two buffers with these instructions; `%rd1` and `%rd2` are the buffers, `%r1` the thread.
fn kernel(body: &str) -> Kernel {
    let text = format!(
        ".version 8.0\n.target sm_90\n.address_size 64\n\n.shared .align 4 .b8 room[16];\n\
         .visible .entry k(\n.param .u64 .ptr .global .align 64 k_param_0,\n.param .u64 k_param_1\n)\n{{\n\
         .reg .b32 %r<9>;\nld.param.b64 %rd1, [k_param_0];\nld.param.b64 %rd2, [k_param_1];\nmov.u32 %r1, %tid.x;\n{body}\nret;\n}}\n"
    );
    parse(&text).unwrap_or_else(|e| panic!("{e}")).swap_remove(0)
}

/// The words of both buffers after a launch.
fn launched(k: &Kernel, threads: u32, words: [&[u32]; 2]) -> Result<[Vec<u32>; 2], Fault> {
    let bytes = |w: &[u32]| w.iter().flat_map(|x| x.to_le_bytes()).collect();
    let mut buffers: Vec<Vec<u8>> = words.into_iter().map(bytes).collect();
    k.launch(1, threads, &mut buffers, &[Arg::Buffer(0), Arg::Buffer(1)])?;
    let back = |b: &Vec<u8>| b.chunks(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect();
    Ok([back(&buffers[0]), back(&buffers[1])])
}

/// Loads its word into `%r2`, then `body`, then stores `%r3` in the word's place.
fn each(body: &str) -> Kernel {
    kernel(&format!(
        "mad.wide.u32 %rd3, %r1, 4, %rd1;\nld.global.b32 %r2, [%rd3];\n{body}\n\
         mad.wide.u32 %rd4, %r1, 4, %rd2;\nst.global.b32 [%rd4], %r3;"
    ))
}

#[test]
fn lanes_exchange_values() {
    let k = each("shfl.sync.bfly.b32 %r3, %r2, 2, 31, 15;");
    let [_, found] = launched(&k, 4, [&[10, 11, 12, 13], &[0; 4]]).expect("runs");
    assert_eq!(found, [12, 13, 10, 11]);
}

#[test]
fn a_lane_that_does_not_come_is_an_error() {
    // Lane 0 takes another way.
    let k = each(
        "setp.eq.u32 %p1, %r1, 0;\n@%p1 bra $L__BB0_1;\nshfl.sync.bfly.b32 %r3, %r2, 1, 31, 15;\n$L__BB0_1:",
    );
    let stuck = launched(&k, 4, [&[0; 4], &[0; 4]]).expect_err("lane 0 is not there");
    assert!(matches!(stuck, Fault::Stuck { .. }), "{stuck}");
    let k = kernel("setp.eq.u32 %p1, %r1, 0;\n@%p1 bra $L__BB0_1;\nbar.sync 0;\n$L__BB0_1:");
    assert!(matches!(launched(&k, 40, [&[0], &[0]]), Err(Fault::Stuck { .. })));
}

#[test]
fn shared_memory_needs_a_barrier() {
    let exchange = |between: &str| {
        each(&format!(
            "mov.b64 %rd5, room;\nmad.wide.u32 %rd6, %r1, 4, %rd5;\nst.shared.b32 [%rd6], %r2;\n{between}\n\
             xor.b32 %r4, %r1, 3;\nmad.wide.u32 %rd7, %r4, 4, %rd5;\nld.shared.b32 %r3, [%rd7];"
        ))
    };
    let words: [&[u32]; 2] = [&[5, 6, 7, 8], &[0; 4]];
    let [_, found] = launched(&exchange("bar.sync 0;"), 4, words).expect("runs");
    assert_eq!(found, [8, 7, 6, 5]);
    let race = launched(&exchange(""), 4, words).expect_err("a race").to_string();
    assert!(race.contains("may touch it"), "{race}");
}

#[test]
fn what_is_outside_or_unknown_is_an_error_with_its_line() {
    let outside = launched(&each("mov.b32 %r3, %r2;"), 5, [&[0; 4], &[0; 4]]).expect_err("four words");
    assert!(matches!(&outside, Fault::Instruction { line: 16, thread: 4, .. }), "{outside:?}");
    let unknown =
        parse(".visible .entry k(\n)\n{\n\tvote.sync.all.pred %p1, %p2, -1;\n}\n").expect_err("not known");
    assert_eq!(unknown, ParseError::Unknown { line: 4, name: "vote.sync.all.pred".into() });
    let k = each("");
    let refused = k.launch(1, 4, &mut [], &[Arg::Number(0)]).expect_err("two parameters");
    assert!(matches!(refused, Fault::Launch { .. }), "{refused}");
}

#[test]
fn numbers_are_converted_as_the_hardware_does() {
    let cases: [(&str, f32, u32); 6] = [
        ("cvt.rzi.s32.f32 %r3, %r2;", -2.7, -2i32 as u32),
        ("cvt.rzi.s32.f32 %r3, %r2;", 1e20, i32::MAX as u32),
        ("cvt.rni.f32.f32 %r3, %r2;", 2.5, 2f32.to_bits()),
        ("cvt.rn.bf16x2.f32 %r3, 0f3F800000, %r2;", 1.003_906_3, 0x3f80_3f80),
        ("min.NaN.f32 %r3, %r2, 0f3F800000;", f32::NAN, f32::NAN.to_bits()),
        ("min.f32 %r3, %r2, 0f3F800000;", f32::NAN, 1f32.to_bits()),
    ];
    for (instruction, x, expected) in cases {
        let [_, found] = launched(&each(instruction), 1, [&[x.to_bits()], &[0]]).expect("runs");
        assert_eq!(found, [expected], "{instruction}");
    }
    let bits = [
        ("prmt.b32 %r3, %r2, 287454020, 0x5410U;", 0xaabb_ccdd, 0x3344_ccdd),
        ("bfe.u32 %r3, %r2, 8, 8;", 0xaabb_ccdd, 0xcc),
        ("bfe.s32 %r3, %r2, 8, 8;", 0xaabb_ccdd, 0xffff_ffcc),
        ("bfi.b32 %r3, 1, %r2, 8, 8;", 0xaabb_ccdd, 0xaabb_01dd),
        ("shr.s32 %r3, %r2, 40;", 0x8000_0000, 0xffff_ffff),
        ("shl.b32 %r3, %r2, 32;", 1, 0),
    ];
    for (instruction, x, expected) in bits {
        let [_, found] = launched(&each(instruction), 1, [&[x], &[0]]).expect("runs");
        assert_eq!(found, [expected], "{instruction}");
    }
}
