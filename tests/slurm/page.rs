//! The page for users of clusters, every command of it, on a cluster.

use crate::cluster::Cluster;
use crate::lab::isoflop;
use crate::pages::{agrees, blocks, read};
use std::process::Command;

#[test]
fn the_page_for_clusters_runs_and_prints_what_it_says() {
    let cluster = Cluster::start(&[("NODES", "4"), ("CPUS", "4")]);
    let lab = tempfile::tempdir().expect("a directory");
    let bin = lab.path().join("bin");
    std::fs::create_dir(&bin).expect("a folder");
    std::os::unix::fs::symlink(isoflop(), bin.join("isoflop")).expect("a link");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let page = read("docs/cluster.md");
    let book = page.clone() + &read("docs/researcher.md") + &read("docs/compiler.md");
    std::fs::write(lab.path().join("book.txt"), book.repeat(8)).expect("written");
    let (mut printed, mut ran) = (String::new(), 0);
    for block in blocks(&page) {
        let place = format!("docs/cluster.md:{}", block.line);
        if let Some(file) = block.mark.strip_prefix("file: ") {
            std::fs::write(lab.path().join(file), &block.text).expect("written");
        } else if block.mark == "prints" {
            let (wanted, found): (Vec<_>, Vec<_>) = (block.text.lines().collect(), printed.lines().collect());
            assert!(agrees(&wanted, &found), "{place}: the page says\n{}\nfound\n{printed}", block.text);
        } else if ["slurm", "test"].contains(&block.mark.as_str()) {
            let output = Command::new("bash")
                .args(["-euo", "pipefail", "-c", &block.text])
                .current_dir(lab.path())
                .env("PATH", &path)
                .env("SLURM_CONF", cluster.conf())
                .env("ISOFLOP_CACHE", lab.path().join("cache"))
                .env("XDG_CONFIG_HOME", lab.path().join("config"))
                .output()
                .expect("bash");
            printed = String::from_utf8_lossy(&output.stdout).into_owned();
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{place}: {}\n{printed}{errors}", output.status);
            ran += usize::from(block.mark == "slurm");
        }
    }
    assert!(ran >= 2, "only {ran} blocks ran on the cluster");
}
