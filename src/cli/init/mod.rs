//! `init`: writes a commented configuration, and says what is to be done at the vendors.
//!
//! Asks on a terminal, or takes every answer as a flag. It opens no connection and takes no secret.

mod answers;
mod args;
mod files;
mod interview;
mod place;
mod present;
mod receivers;
mod steps;
#[cfg(test)]
mod tests;

use std::io::{self, BufReader, IsTerminal};
use std::path::PathBuf;

use serde::Serialize;

pub(crate) use args::InitArgs;
use files::NewFile;
use interview::{Asking, Interview};
use present::Present;
use steps::Section;

use crate::cli::Common;
use crate::cli::failure::{Code, Failure, Outcome};
use crate::cli::output::{Output, print};

/// What was written, for programs.
#[derive(Debug, Serialize)]
struct Report<'a> {
    written: bool,
    files: Vec<Written<'a>>,
    steps: &'a [Section],
}

#[derive(Debug, Serialize)]
struct Written<'a> {
    path: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
}

/// Runs the command.
pub(crate) fn run(args: &InitArgs, common: &Common) -> Outcome {
    if args.yes {
        return carry_out(args, common, Asking::Nobody);
    }
    if !io::stdin().is_terminal() {
        let what = "init asks questions, and standard input is no terminal";
        return Err(Failure::new(Code::Usage, what)
            .help("give --yes and the answers as flags: exfilwatch init --help has examples"));
    }
    // Questions go where logs go: standard output is for the result.
    carry_out(
        args,
        common,
        Asking::Terminal {
            input: &mut BufReader::new(io::stdin()),
            output: &mut io::stderr(),
        },
    )
}

fn carry_out(args: &InitArgs, common: &Common, asking: Asking<'_>) -> Outcome {
    let (files, sections) = prepare(args, common, asking)?;
    if !args.dry_run {
        place::place(&files, args.force)?;
    }
    print(&report(args, common.output, &files, &sections)?)
}

/// The files, checked, and the steps. Writes nothing.
fn prepare(
    args: &InitArgs,
    common: &Common,
    asking: Asking<'_>,
) -> Result<(Vec<NewFile>, Vec<Section>), Failure> {
    let present = Present::look(&common.config)?;
    let mut interview = Interview::new(asking);
    interview.say(
        "exfilwatch init: what stands in [ ] is meant by an empty answer. No secret is asked for, \
         only the file it is in.",
    )?;
    let answers = args.answers(&present, &mut interview)?;
    interview.finish()?;
    let Some(answers) = answers else {
        return Err(Failure::new(Code::Usage, "not everything is said"));
    };
    let files = files::files(&answers, &present);
    place::check(&files, &present, &answers.tenant)?;
    Ok((files, steps::sections(&answers, &present)))
}

fn report(
    args: &InitArgs,
    output: Output,
    files: &[NewFile],
    sections: &[Section],
) -> Result<String, Failure> {
    if output == Output::Table {
        return Ok(text(args, files, sections));
    }
    let report = Report {
        written: !args.dry_run,
        files: files
            .iter()
            .map(|file| Written {
                path: file.path.clone(),
                text: args.dry_run.then_some(file.text.as_str()),
            })
            .collect(),
        steps: sections,
    };
    let json = match output {
        Output::Ndjson => serde_json::to_string(&report),
        Output::Json | Output::Table => serde_json::to_string_pretty(&report),
    };
    json.map(|text| text + "\n")
        .map_err(|error| Failure::caused(Code::State, "writing JSON", &error))
}

fn text(args: &InitArgs, files: &[NewFile], sections: &[Section]) -> String {
    let mut out = String::new();
    for file in files {
        if args.dry_run {
            out += &format!("==> {}\n{}\n", file.path.display(), file.text);
        } else {
            out += &format!("written: {}\n", file.path.display());
        }
    }
    for section in sections {
        out += &format!("\n{}\n", section.title);
        for (number, step) in section.steps.iter().enumerate() {
            let indented = step.replace('\n', "\n     ");
            out += &format!("  {}. {indented}\n", number + 1);
        }
    }
    out
}
