#!/usr/bin/env bash
# Installs what isoflop needs on Debian 12+ or Ubuntu. Safe to run again: when nothing is missing it says nothing, needs no
# network and takes well under a second.
#
#   scripts/setup.sh             everything: build, tests, reports
#   scripts/setup.sh --worker    only what `cargo build --no-default-features` needs (no LLVM)
#
# What needs which package:
#   building anything            build-essential (gcc links Rust programs)
#   compiling kernels            gcc (`cc` links each study's kernels into one shared object)
#   cargo feature `mlir`         llvm-22-dev libmlir-22-dev: LLVM and MLIR, linked statically
#                                libpolly-22-dev libzstd-dev zlib1g-dev: libraries that LLVM's link line names
#                                libclang-22-dev: bindgen reads MLIR's headers with it
#   sweeps on corpus/gcide       dict-gcide (the GNU Collaborative International Dictionary of English)
#   tests of reports             chromium (renders report.html)
#   tests on a real Slurm        slurmctld slurmd slurm-client munge; with its accounting slurmdbd slurm-wlm-mysql-plugin
#                                mariadb-server-core mariadb-client-core (the -core packages start no service)
#   compiling CUDA kernels       third_party/cuda: three of NVIDIA's wheels, pinned in scripts/cuda-requirements.txt
#                                (130 MB to download), and python3-pip to fetch them. No GPU and no CUDA are needed.
#                                Where CUDA 13's libnvrtc, ptxas and nvdisasm are at hand, ISOFLOP_CUDA_HOME names their folder.
set -euo pipefail

MIN_RUST=1.89
BUILD=(build-essential)
LLVM=(llvm-22-dev libmlir-22-dev libpolly-22-dev libzstd-dev zlib1g-dev libclang-22-dev)
TESTS=(dict-gcide slurmctld slurmd slurm-client munge slurmdbd slurm-wlm-mysql-plugin mariadb-server-core mariadb-client-core)

die() {
    printf 'setup.sh: %s\n' "$@" >&2
    exit 1
}

worker=false
for argument in "$@"; do
    case $argument in
    --worker) worker=true ;;
    -h | --help)
        sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"
        exit 0
        ;;
    *) die "unknown argument '$argument'; allowed are --worker and --help" ;;
    esac
done

wanted=("${BUILD[@]}")
if ! $worker; then
    wanted+=("${LLVM[@]}" "${TESTS[@]}")
    # Ubuntu's package `chromium-browser` only installs a snap, so any browser that is already there will do.
    if ! command -v chromium >/dev/null && ! command -v google-chrome >/dev/null; then
        wanted+=(chromium)
    fi
fi

install_missing() {
    local missing=() package
    if ! command -v dpkg-query >/dev/null; then
        die "this script knows Debian and Ubuntu only, and there is no dpkg here." \
            "Install by hand: a C compiler (cc)$($worker || echo ", LLVM and MLIR 22 with headers and static libraries, libclang")." \
            "If LLVM is not in /usr/lib/llvm-22, set MLIR_SYS_220_PREFIX to its folder and LIBCLANG_PATH to libclang's."
    fi
    local installed
    installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "${wanted[@]}" 2>/dev/null || true)
    for package in "${wanted[@]}"; do
        grep -qx "installed $package" <<<"$installed" || missing+=("$package")
    done
    ((${#missing[@]})) || return 0

    command -v apt-get >/dev/null || die "missing packages, and there is no apt-get to install them: ${missing[*]}"
    local as_root=()
    if ((EUID != 0)); then
        command -v sudo >/dev/null || die "missing packages: ${missing[*]}" "Run this script as root, or install sudo."
        as_root=(sudo)
    fi

    echo "setup.sh: installing ${missing[*]}"
    "${as_root[@]}" apt-get update -qq || die "apt-get update failed (message above); is the network up?"
    for package in "${missing[@]}"; do
        if ! apt-cache show "$package" >/dev/null 2>&1; then
            case $package in
            *-22-dev)
                die "no package $package in your package sources." \
                    "Debian 12: LLVM 22 is in the suite bookworm-security, component main; enable it and run again." \
                    "Releases without LLVM 22: add the LLVM project's own package repository for version 22." \
                    "A machine that only trains needs no LLVM: scripts/setup.sh --worker."
                ;;
            chromium)
                die "no package chromium in your package sources." \
                    "Install Chromium or Google Chrome so that 'chromium' or 'google-chrome' is on the PATH."
                ;;
            *) die "no package $package in your package sources; enable Debian's 'main' or Ubuntu's 'universe' component" ;;
            esac
        fi
    done
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
        die "apt-get could not install ${missing[*]} (message above)"
}

# NVIDIA's compilers of CUDA, in a folder of this repository that git ignores. What is in it is said by a copy of the
# requirements, written last, so that a broken download is not taken for a whole one.
install_cuda() {
    local root requirements folder
    root=$(cd "$(dirname "$0")/.." && pwd)
    requirements=$root/scripts/cuda-requirements.txt
    folder=$root/third_party/cuda
    [[ -z ${ISOFLOP_CUDA_HOME:-} ]] || return 0
    ! cmp -s "$requirements" "$folder/requirements.txt" || return 0
    if ! python3 -m pip --version >/dev/null 2>&1; then
        wanted=(python3-pip)
        install_missing
    fi
    echo "setup.sh: fetching the compilers of CUDA into third_party/cuda"
    rm -rf "$folder" "$folder.part"
    PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 python3 -m pip install --quiet --no-deps --no-compile \
        --only-binary=:all: --require-hashes --target "$folder.part" --requirement "$requirements" ||
        die "pip could not fetch the wheels of scripts/cuda-requirements.txt (message above); is the network up?"
    cp "$requirements" "$folder.part/requirements.txt"
    mv "$folder.part" "$folder"
}

check_rust() {
    local hint="Install Rust $MIN_RUST or newer: with rustup, 'rustup toolchain install stable'."
    local version
    command -v cargo >/dev/null && command -v rustc >/dev/null || die "no Rust (cargo, rustc) on the PATH." "$hint"
    version=$(rustc --version) || die "rustc does not run (message above)." "$hint"
    version=${version#rustc }
    version=${version%%[ -]*}
    if [[ $(printf '%s\n' "$MIN_RUST" "$version" | sort -V | head -n 1) != "$MIN_RUST" ]]; then
        die "Rust $version is too old." "$hint"
    fi
}

install_missing
$worker || install_cuda
check_rust
