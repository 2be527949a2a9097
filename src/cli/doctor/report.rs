//! What `doctor` and `auth check` print: all checks in a table, below it each problem in three lines
//! (what, seen, fix), the failures last, where a person looks first.

use std::fmt::Write as _;

use exfilwatch_model::diagnosis::{Area, Cause, Check, Verdict};

use crate::cli::failure::{Code, Failure, Outcome};
use crate::cli::output::{self, Output, Table, plain, print_items};

/// Prints the checks. Fails with the exit code of the first that failed.
pub(crate) fn print(checks: &[Check], output: Output) -> Outcome {
    if output == Output::Table {
        output::print(&text(checks))?;
    } else {
        print_items(output, checks, &Table::default())?;
    }
    outcome(checks)
}

/// Fails with the exit code of the first check that failed.
fn outcome(checks: &[Check]) -> Outcome {
    let count = |verdict| checks.iter().filter(|c| c.verdict == verdict).count();
    let first = checks.iter().find(|check| check.verdict == Verdict::Failed);
    let Some((first, cause)) = first.and_then(|check| Some((check, check.cause?))) else {
        return Ok(());
    };
    let what = format!(
        "{} of {} checks failed, {} were skipped; the first: {} {}: {}",
        count(Verdict::Failed),
        checks.len(),
        count(Verdict::Skipped),
        first.subject,
        first.check,
        cause.name()
    );
    Err(Failure::new(code(cause.area()), what))
}

fn code(area: Area) -> Code {
    match area {
        Area::Configuration => Code::Usage,
        Area::Access => Code::Auth,
        Area::Vendor => Code::Vendor,
        Area::Receiver => Code::Receiver,
        Area::State => Code::State,
    }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Warning => "WARNING",
        Verdict::Failed => "FAILED",
        Verdict::Skipped => "skipped",
    }
}

fn text(checks: &[Check]) -> String {
    let mut table = Table::new(&["", "SUBJECT", "CHECK", "SEEN"]);
    for check in checks {
        table.row([
            word(check.verdict).to_owned(),
            check.subject.clone(),
            check.check.to_owned(),
            check.seen.clone(),
        ]);
    }
    let mut text = table.text();
    for verdict in [Verdict::Warning, Verdict::Failed] {
        for check in checks.iter().filter(|check| check.verdict == verdict) {
            text.push_str(&problem(check));
        }
    }
    if checks.iter().all(|check| check.verdict == Verdict::Ok) {
        text.push_str("\nAll is well.\n");
    }
    text
}

/// Three lines: what, seen, fix.
fn problem(check: &Check) -> String {
    let mut text = String::new();
    // Writing into a String cannot fail.
    writeln!(
        text,
        "\n{} {} {}: {}",
        word(check.verdict),
        check.subject,
        check.check,
        check.cause.map_or("", Cause::name)
    )
    .unwrap_or_default();
    for (label, words) in [("seen", Some(&check.seen)), ("fix", check.fix.as_ref())] {
        if let Some(words) = words {
            let lines: Vec<String> = words.lines().map(plain).collect();
            writeln!(text, "  {label:<5} {}", lines.join("\n        ")).unwrap_or_default();
        }
    }
    text
}

/// Prints all causes as a page: docs/DOCTOR.md.
pub(super) fn causes() -> Outcome {
    let mut page = String::from(
        "# What `exfilwatch doctor` names\n\n\
         This page is made by `cargo xtask generate` from the list in `model/src/diagnosis.rs`.\n\n\
         `doctor` and `auth check` print checks in order. Each has a verdict (`ok`, `warning`, `failed`, or\n\
         `skipped` because of an earlier one), what was seen and what to do; where something is wrong, its\n\
         **cause** is one of the constants below (`--output json`, member `cause`). They stay; the words beside\n\
         them may change. The exit code is that of the first check that failed; warnings alone give 0.\n",
    );
    for area in [
        Area::Configuration,
        Area::Access,
        Area::Vendor,
        Area::Receiver,
        Area::State,
    ] {
        let title = match area {
            Area::Configuration => "Configuration and secrets",
            Area::Access => "Credentials and permissions at the vendor",
            Area::Vendor => "The vendor's service and the way there",
            Area::Receiver => "Receivers",
            Area::State => "State folder",
        };
        write!(
            page,
            "\n## {title} (exit code {})\n\n| cause | meaning | what to do |\n|---|---|---|\n",
            code(area) as u8
        )
        .unwrap_or_default();
        for cause in Cause::ALL.iter().filter(|cause| cause.area() == area) {
            writeln!(
                page,
                "| `{}` | {} | {} |",
                cause.name(),
                cause.meaning(),
                cause.fix()
            )
            .unwrap_or_default();
        }
    }
    output::print(&page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_three_lines_what_seen_and_fix() {
        let check = Check::failed(
            "token",
            Cause::ClientSecretWrong,
            "AADSTS7000215: \u{1b}[2J no",
        )
        .about("office365.contoso");
        insta::assert_snapshot!(problem(&check), @r"
        FAILED office365.contoso token: client_secret_wrong
          seen  AADSTS7000215: \u{1b}[2J no
          fix   use the secret's value, not its id
        ");
    }

    #[test]
    fn the_exit_code_is_that_of_the_first_failure_and_warnings_have_none() {
        let warning = Check::warning("clock", Cause::ClockSkew, "x");
        let first = Check::failed("token", Cause::ClientSecretWrong, "x");
        let second = Check::failed("state_write", Cause::StateNotWritable, "x");
        let outcome = |checks: &[Check]| outcome(checks).map_err(|f| f.code);
        assert_eq!(outcome(std::slice::from_ref(&warning)), Ok(()));
        assert_eq!(outcome(&[warning, first, second.clone()]), Err(Code::Auth));
        assert_eq!(outcome(&[second]), Err(Code::State));
    }
}
