//! `completions` and `man`: what a package puts beside the binary, made from the commands themselves.

use std::path::{Path, PathBuf};

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Args;
use crate::cli::failure::{Code, Failure, Outcome};
use crate::cli::output::print;

/// For which shell.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct CompletionsArgs {
    /// The shell that is to complete.
    shell: Shell,
}

/// Where the pages go.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ManArgs {
    /// Folder for a page of each command; without it the main page goes to standard output.
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// Prints the completions of a shell.
pub(crate) fn completions(args: CompletionsArgs) -> Outcome {
    let mut command = Args::command();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "exfilwatch", &mut script);
    print(&String::from_utf8_lossy(&script))
}

/// Prints the main page, or writes a page of each command.
pub(crate) fn man(args: &ManArgs) -> Outcome {
    let Some(folder) = &args.folder else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Args::command())
            .render(&mut page)
            .map_err(|error| Failure::caused(Code::State, "writing the page", &error))?;
        return print(&String::from_utf8_lossy(&page));
    };
    written(folder).map_err(|error| {
        let what = format!("writing manual pages to {}", folder.display());
        Failure::caused(Code::State, what, &error)
    })
}

fn written(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(Args::command(), folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_its_completion() {
        let folder = tempfile::tempdir().unwrap();
        written(folder.path()).unwrap();
        let mut script = Vec::new();
        clap_complete::generate(Shell::Bash, &mut Args::command(), "exfilwatch", &mut script);
        let script = String::from_utf8(script).unwrap();
        for command in Args::command().get_subcommands() {
            let name = command.get_name();
            let page = folder.path().join(format!("exfilwatch-{name}.1"));
            let page = std::fs::read_to_string(&page).expect(name);
            assert!(page.contains(".SH SYNOPSIS"), "{name}");
            assert!(script.contains(&format!("exfilwatch,{name})")), "{name}");
        }
    }
}
