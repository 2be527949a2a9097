//! One way through all answers, whether they come as flags or are asked for. A flag answers its
//! question; what no flag answers is asked, or with `--yes` has its default, or is missing.

use std::io::{BufRead, Write};

use crate::cli::failure::{Code, Failure};

/// Longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 8 << 10;

/// Where answers come from that no flag gave.
pub(super) enum Asking<'a> {
    /// Nobody is asked (`--yes`).
    Nobody,
    /// Questions on a terminal.
    Terminal {
        /// What is typed.
        input: &'a mut dyn BufRead,
        /// Where questions are shown.
        output: &'a mut dyn Write,
    },
}

/// A question, with the flag that answers it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    /// The flag, as in `--tenant-id GUID`.
    pub(super) flag: &'a str,
    /// The question, without a mark at its end.
    pub(super) text: &'a str,
    /// What an empty answer means.
    pub(super) default: Option<&'a str>,
}

/// Asks, and notes what is missing.
pub(super) struct Interview<'a> {
    asking: Asking<'a>,
    missing: Vec<String>,
}

impl<'a> Interview<'a> {
    pub(super) fn new(asking: Asking<'a>) -> Self {
        Self {
            asking,
            missing: Vec::new(),
        }
    }

    /// Whether somebody can be asked.
    pub(super) fn asks(&self) -> bool {
        matches!(self.asking, Asking::Terminal { .. })
    }

    /// The flag's value, or the answer, or the default. `None` is noted as missing.
    pub(super) fn value<T>(
        &mut self,
        given: Option<T>,
        question: Question<'_>,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Failure> {
        if given.is_some() {
            return Ok(given);
        }
        if let Asking::Terminal { input, output } = &mut self.asking {
            return ask(*input, *output, question, read).map(Some);
        }
        match question.default {
            Some(default) => read(default).map(Some).map_err(|why| {
                Failure::new(Code::Usage, format!("{} {default}: {why}", question.flag))
            }),
            None => {
                self.missing.push(question.flag.to_owned());
                Ok(None)
            }
        }
    }

    /// A question that is only asked, never needed: without anybody to ask the answer is `else_`.
    pub(super) fn yes(&mut self, question: Question<'_>, else_: bool) -> Result<bool, Failure> {
        match &mut self.asking {
            Asking::Terminal { input, output } => {
                ask(*input, *output, question, super::answers::yes_or_no)
            }
            Asking::Nobody => Ok(else_),
        }
    }

    /// Notes something that flags should have said.
    pub(super) fn lacks(&mut self, what: &str) {
        self.missing.push(what.to_owned());
    }

    /// A sentence between questions.
    pub(super) fn say(&mut self, text: &str) -> Result<(), Failure> {
        match &mut self.asking {
            Asking::Terminal { output, .. } => {
                writeln!(output, "\n{text}").map_err(|error| unasked(&error))
            }
            Asking::Nobody => Ok(()),
        }
    }

    /// Everything that is missing, in one failure.
    pub(super) fn finish(self) -> Result<(), Failure> {
        if self.missing.is_empty() {
            return Ok(());
        }
        let what = format!("not everything is said; add {}", self.missing.join(", "));
        Err(Failure::new(Code::Usage, what).help(
            "without --yes, and on a terminal, what no flag says is asked for; \
             exfilwatch init --help has examples",
        ))
    }
}

fn unasked(error: &std::io::Error) -> Failure {
    Failure::caused(Code::Usage, "asking on the terminal", error)
}

/// Asks until the answer can be used.
fn ask<T>(
    input: &mut dyn BufRead,
    output: &mut dyn Write,
    question: Question<'_>,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<T, Failure> {
    loop {
        let default = question
            .default
            .map(|default| format!(" [{default}]"))
            .unwrap_or_default();
        write!(output, "{}{default}: ", question.text)
            .and_then(|()| output.flush())
            .map_err(|error| unasked(&error))?;
        let mut line = String::new();
        let mut limited = std::io::Read::take(&mut *input, ANSWER_BYTES_MAX);
        let count = limited
            .read_line(&mut line)
            .map_err(|error| Failure::caused(Code::Usage, "reading the answer", &error))?;
        if count == 0 {
            let what = format!(
                "the input ended at the question \"{}\"; nothing was written",
                question.text
            );
            return Err(Failure::new(Code::Usage, what)
                .help("start again; exfilwatch init --yes takes all answers as flags"));
        }
        let typed = match (line.trim(), question.default) {
            ("", Some(default)) => default,
            (typed, _) => typed,
        };
        match read(typed) {
            Ok(value) => return Ok(value),
            Err(why) => writeln!(output, "  {why}").map_err(|error| unasked(&error))?,
        }
    }
}
