//! The shim finds what a GPU would do silently: races, wrong addresses, barriers that not all threads reach.

use super::simt::{Order, Region, launch};
use isoflop_kernels::DType;
use isoflop_kernels::cpu::attention::RelAttention;
use isoflop_kernels::cuda::attention::{Version, forward};
use isoflop_kernels::cuda::{Argument, Kernel, Launch, Source};
use std::collections::BTreeMap;

/// The message of a launch of 2 blocks of 64 threads with 256 bytes of shared memory and 128 floats `x`.
#[track_caller]
fn refused(name: &'static str, body: &str) -> String {
    outcome(name, body).expect_err("the shim lets it pass")
}

fn outcome(name: &'static str, body: &str) -> Result<(), String> {
    let text = format!(
        "#include \"device.cuh\"\nextern \"C\" __global__ void k(Global<float> x) {{\n\
        [[maybe_unused]] Shared<float> s = shared_at<float>(0); [[maybe_unused]] int t = threadIdx.x, i = blockIdx.x * 64 + t;\n\
        (void)x;\n{body}\n}}\nEXPORT(k)"
    );
    // The macro keeps sources of one file apart.
    let kernel = Kernel { source: Source::AdamW, entry: "k", defines: vec![("CASE", name.into())] };
    let arguments = vec![Argument::Buffer("x")];
    let grid = Launch { kernel, grid: [2, 1, 1], threads: 64, shared_bytes: 256, arguments };
    let named = BTreeMap::from([("x", Region::of(&[1.0; 128], isoflop_kernels::DType::F32))]);
    launch(&grid, &text, &named, &[], Order::Ascending)
}

#[test]
fn races_are_found() {
    for (name, body) in [
        ("write_read", "s[t] = 1.0f; x[i] = s[63 - t];"),
        ("read_write", "s[t] = 1.0f; __syncthreads(); x[i] = s[(t + 1) % 64]; s[t] = 2.0f;"),
        ("two_writers", "s[t / 2] = 1.0f;"),
        ("other_warp", "s[t] = 1.0f; __syncwarp(); x[i] = s[63 - t];"),
        ("two_blocks", "x[t] = 1.0f;"),
        ("block_reads", "x[i] = x[127 - i];"),
    ] {
        let message = refused(name, body);
        assert!(message.contains("with nothing between them"), "{name}: {message}");
    }
    for (name, body) in [
        ("barrier", "s[t] = 1.0f; __syncthreads(); x[i] = s[63 - t];"),
        ("warp", "s[t] = 1.0f; __syncwarp(); x[i] = s[t ^ 31];"),
        ("own", "s[t] = 1.0f; x[i] = s[t];"),
    ] {
        assert_eq!(outcome(name, body), Ok(()), "{name}");
    }
}

#[test]
fn wrong_addresses_are_found() {
    for (name, body, expected) in [
        ("past", "x[i + 1] = 0.0f;", "writes byte 512 of buffer 0, which has 512 bytes"),
        ("before", "float y = x[i - 1]; x[i] = y;", "reads byte -4 of buffer 0"),
        ("shared", "s[t + 1] = 0.0f;", "byte 256 of shared memory is outside its 256 bytes"),
        (
            "aligned",
            "uint4 y = load_16(x + 1); store_16(x, y);",
            "16 bytes at byte 4 of buffer 0 are not aligned",
        ),
    ] {
        let message = refused(name, body);
        assert!(message.contains(expected), "{name}: {message}");
    }
}

#[test]
fn threads_that_do_not_meet_are_found() {
    for (name, body, expected) in [
        (
            "left",
            "if (t < 32) return;\n__syncthreads();",
            "thread 0 has left (line 0), thread 32 waits for the block",
        ),
        ("branch", "if (t < 32) {\n__syncthreads();\n} else {\n__syncthreads();\n}", "diverges"),
        ("shuffle", "if (t != 3) x[i] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);", "waits for its warp"),
        (
            "warps",
            "if (t % 32 < 16) {\n__syncwarp();\n} else {\nx[i] = __shfl_sync(0xffffffffu, 1.0f, 0);\n}",
            "the warp diverges",
        ),
        (
            "copies",
            "if (t < 16) cp_async_16(s + 4 * t, x, true);\ncp_async_commit();",
            "copies it has not waited for",
        ),
    ] {
        let message = refused(name, body);
        assert!(message.contains(expected), "{name}: {message}");
    }
}

#[test]
fn a_copy_is_there_only_after_its_wait() {
    let body = |wait: &str| {
        format!(
            "if (t < 16) cp_async_16(s + 4 * t, x + (blockIdx.x * 64 + 4 * t), true);\ncp_async_commit();\n{wait}\n__syncthreads();\n\
            float y = s[t];\nx[i] = y;\ncp_async_wait(0);"
        )
    };
    assert_eq!(outcome("waited", &body("cp_async_wait(0);")), Ok(()));
    // Without the wait NaN is read, and the copy lands on what another thread reads.
    let message = refused("not_waited", &body(""));
    assert!(message.contains("with nothing between them"), "{message}");
}

/// Taken away one at a time, each barrier of a real kernel is missed.
#[test]
fn every_barrier_of_the_forward_pass_is_needed() {
    let dims = RelAttention { batch: 1, seq: 150, heads: 1, d_head: 32 };
    let call = forward(&dims, DType::Bf16, Version::V1).expect("a shape there are kernels for");
    let ones = |b: &isoflop_kernels::cuda::Buffer| (b.name, Region::of(&vec![1.0; b.elements], b.dtype));
    let named: BTreeMap<_, _> = call.buffers.iter().map(ones).collect();
    let text = call.launches[0].kernel.source.text();
    let mut without = 0;
    for barrier in ["__syncthreads();", "__syncwarp();"] {
        for (at, _) in text.match_indices(barrier) {
            let mut changed = call.launches[0].clone();
            changed.kernel.defines.push(("WITHOUT", at.to_string()));
            let text = format!("{}{}", &text[..at], &text[at + barrier.len()..]);
            let message = launch(&changed, &text, &named, &[], Order::Ascending).expect_err("a race");
            assert!(message.contains("with nothing between them"), "{message}");
            without += 1;
        }
    }
    assert!(without >= 6, "only {without} barriers");
}
