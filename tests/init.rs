//! `init` as the built binary: what it writes passes `config check`, and without a terminal it says
//! what to do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::Output;

use assert_cmd::Command;

fn exfilwatch(folder: &Path, arguments: &[&str]) -> Output {
    Command::cargo_bin("exfilwatch")
        .unwrap()
        .current_dir(folder)
        .args(arguments)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn what_init_writes_passes_config_check() {
    let folder = tempfile::tempdir().unwrap();
    let flags = "init --yes --tenant contoso --internal-domain contoso.example \
                 --tenant-id 01234567-89ab-cdef-0123-456789abcdef \
                 --client-id fedcba98-7654-3210-fedc-ba9876543210 \
                 --client-secret-file secrets/office365 --subject reader@contoso.example \
                 --service-account-file secrets/google.json \
                 --hec-url https://splunk.example:8088 --hec-token-env HEC_TOKEN";
    let flags: Vec<&str> = flags.split_whitespace().collect();
    let made = exfilwatch(folder.path(), &flags);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let steps = text(&made.stdout);
    assert!(steps.contains("written: exfilwatch.toml"), "{steps}");
    assert!(steps.contains("exfilwatch doctor"), "{steps}");
    let checked = exfilwatch(folder.path(), &["config", "check"]);
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    assert_eq!(
        text(&checked.stdout),
        "ok: 1 tenant, 2 connectors, 1 emitter\n"
    );
    // Again: nothing is replaced.
    let again = exfilwatch(folder.path(), &flags);
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).contains("is there already"));
}

#[test]
fn without_a_terminal_nobody_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let output = exfilwatch(folder.path(), &["init"]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(
        said.contains("no terminal") && said.contains("--yes"),
        "{said}"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
