//! Builds again when a rule file changes: the rules are embedded.

fn main() {
    println!("cargo::rerun-if-changed=rules");
}
