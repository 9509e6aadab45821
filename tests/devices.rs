//! `isoflop devices`, on this machine and with a stand-in for the CUDA driver that says what a driver may say.
#![cfg(all(feature = "study", target_os = "linux"))]

mod command;

use command::{isoflop, refusal, stdout};
use std::path::Path;
use std::process::Command;

/// The calls of libcuda that are made, answered from the environment.
const DRIVER: &str = r#"
#include <stdlib.h>
#include <string.h>
static int number(const char *name, int otherwise) { const char *v = getenv(name); return v ? atoi(v) : otherwise; }
int cuDriverGetVersion(int *v) { *v = number("FAKE_VERSION", 13000); return 0; }
int cuInit(unsigned flags) { (void)flags; return number("FAKE_INIT", 0); }
int cuDeviceGetCount(int *n) { *n = 2; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetName(char *name, int length, int device) {
    strncpy(name, device ? "Old GPU" : "New GPU", length);
    return 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { (void)device; *bytes = 80000000000; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    switch (attribute) {
    case 75: *value = device ? 7 : 9; return 0; /* COMPUTE_CAPABILITY_MAJOR */
    case 76: *value = device ? 5 : 0; return 0; /* COMPUTE_CAPABILITY_MINOR */
    case 16: *value = 132; return 0;            /* MULTIPROCESSOR_COUNT */
    default: *value = 1; return number("FAKE_ATTRIBUTE", 0);
    }
}
int cuGetErrorName(int error, const char **name) { (void)error; *name = "CUDA_ERROR_FAKE"; return 0; }
int cuGetErrorString(int error, const char **text) { (void)error; *text = "it was asked to fail"; return 0; }
"#;

/// A folder with the stand-in as libcuda.so.1.
fn driver() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let source = dir.path().join("driver.c");
    std::fs::write(&source, DRIVER).expect("written");
    let library = dir.path().join("libcuda.so.1");
    let status = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status();
    assert!(status.expect("cc").success());
    std::os::unix::fs::symlink(&library, dir.path().join("libcuda.so")).expect("a link");
    dir
}

fn devices(driver: &Path, variables: &[(&str, &str)], args: &[&str]) -> String {
    let mut command = isoflop(driver, &[&["devices"], args].concat());
    command.env("LD_LIBRARY_PATH", driver).envs(variables.iter().copied());
    stdout(command)
}

#[test]
fn this_machine_has_a_processor_and_says_whether_it_has_gpus() {
    let json = stdout(isoflop(Path::new("."), &["devices", "--output", "json"]));
    let found: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert!(found["cpu"]["cores"].as_u64() >= Some(1), "{found}");
    assert_ne!(found["cuda"].is_null(), found["cuda_error"].is_null(), "{found}");
    assert!(stdout(isoflop(Path::new("."), &["devices"])).starts_with("CPU "));
    let message = refusal(isoflop(Path::new("."), &["devices", "--output", "csv"]));
    assert!(message.contains("table") && message.contains("json"), "{message}");
}

#[test]
fn gpus_are_listed_with_the_kernels_they_run() {
    let driver = driver();
    let said = devices(driver.path(), &[], &[]);
    for line in [
        "GPU 0  New GPU: compute capability 9.0, 132 multiprocessors, 80.0 GB: kernels for sm_90a",
        "GPU 1  Old GPU: compute capability 7.5, 132 multiprocessors, 80.0 GB: no kernels: they need compute capability 8.0",
        "driver for CUDA 13.0",
    ] {
        assert!(said.contains(line), "{line} in\n{said}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&devices(driver.path(), &[], &["--output", "json"])).expect("JSON");
    assert_eq!(json["cuda"]["gpus"][0]["compute_capability"], serde_json::json!([9, 0]), "{json}");
}

#[test]
fn what_is_wrong_with_a_driver_is_one_sentence() {
    let driver = driver();
    for (variable, sentence) in [
        (
            ("FAKE_VERSION", "11080"),
            "GPU    none: the CUDA driver is too old: it is of CUDA 11.8, kernels need one of CUDA 12.0",
        ),
        (
            ("FAKE_INIT", "100"),
            "GPU    none: the CUDA driver finds no GPU (CUDA_ERROR_FAKE: it was asked to fail)",
        ),
        (("FAKE_INIT", "999"), "GPU    none: the CUDA driver could not start: CUDA_ERROR_FAKE"),
        (("FAKE_ATTRIBUTE", "999"), "GPU    none: the CUDA driver could not describe a GPU: CUDA_ERROR_FAKE"),
    ] {
        let said = devices(driver.path(), &[variable], &[]);
        assert!(said.contains(sentence), "{sentence} in\n{said}");
    }
}
