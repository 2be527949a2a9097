//! `rules …`: the detections, one file a command.

mod coverage;
mod coverage_page;
mod lint;
mod list;
mod new;
mod show;
mod sigma;
mod test;

use std::path::PathBuf;
use std::sync::Arc;

use clap::Subcommand;
use exfilwatch_detectors::catalogue::{self, Summary};
use exfilwatch_detectors::{DetectorsOptions, Pack, RuleSet};

use crate::app;
use crate::cli::Common;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::output::print;
use crate::pipeline::alarm;

/// What to do with the rules.
#[derive(Debug, Subcommand)]
pub(crate) enum RulesCommand {
    /// Lists all detections.
    List {
        /// As the page docs/RULES.md.
        #[arg(long)]
        markdown: bool,
        /// As the page docs/COVERAGE.md: what other collections have for the same acts.
        #[arg(long, conflicts_with = "markdown")]
        coverage: bool,
        #[command(flatten)]
        rules: RulesArgs,
    },
    /// Shows one detection: what it looks for, what to check, its cases.
    Show {
        /// Name or id.
        name: String,
        #[command(flatten)]
        rules: RulesArgs,
    },
    /// Runs the cases that stand in the rule files, and says field by field why one fails.
    Test {
        /// Only detections whose name begins like this.
        #[arg(default_value = "")]
        name: String,
        #[command(flatten)]
        rules: RulesArgs,
    },
    /// Writes the skeleton of a rule file, with cases that `rules test` runs.
    New(new::NewArgs),
    /// Says of each rule when its operations were last seen in a tenant: never in 30 days means that a
    /// licence, a setting or a policy is missing.
    Coverage(coverage::CoverageArgs),
    /// Says of each stock Sigma rule in a folder whether it is run, with which names, or why it can never
    /// match.
    Sigma {
        /// The folder.
        dir: PathBuf,
    },
    /// Looks for what would never match, match too much, or not mean what it says.
    Lint {
        /// A folder of rule files; without it the built-in ones are looked at.
        #[arg(long, value_name = "DIR")]
        rules: Option<PathBuf>,
    },
}

/// Which rules.
#[derive(Debug, clap::Args)]
pub(crate) struct RulesArgs {
    /// Rule files beside the built-in ones; a rule with the same id replaces ours.
    #[arg(long, value_name = "DIR")]
    rules: Option<PathBuf>,
}

impl RulesArgs {
    fn load(self) -> Result<Arc<RuleSet>, Failure> {
        app::rules_with_cases(&DetectorsOptions {
            rules_dir: self.rules,
            packs: Pack::ALL.to_vec(),
            ..DetectorsOptions::default()
        })
    }
}

/// Runs the command.
pub(crate) fn run(command: RulesCommand, common: &Common) -> Outcome {
    match command {
        RulesCommand::List {
            coverage: true,
            rules,
            ..
        } => print(&coverage_page::page(&all(&*rules.load()?))),
        RulesCommand::List {
            markdown: true,
            rules,
            ..
        } => print(&list::page(&all(&*rules.load()?))),
        RulesCommand::List {
            markdown: false,
            rules,
            ..
        } => {
            let rules = rules.load()?;
            list::list(&all(&rules), common.output)?;
            list::left_out(&rules, common.output)
        }
        RulesCommand::Show { name, rules } => show::show(&name, &*rules.load()?, common.output),
        RulesCommand::Test { name, rules } => test::test(&name, &rules.load()?, common.output),
        RulesCommand::New(args) => new::new(&args),
        RulesCommand::Coverage(args) => {
            super::asynchronous(coverage::coverage(args, common.clone()))
        }
        RulesCommand::Sigma { dir } => sigma::sigma(&dir, common.output),
        RulesCommand::Lint { rules } => lint::lint(rules.as_deref(), common.output),
    }
}

/// Every detection by name, that of the pipeline's own with them.
fn all(rules: &RuleSet) -> Vec<Summary> {
    let mut all = catalogue::summaries(rules);
    all.push(alarm::summary());
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_detection_of_the_pipeline_stands_in_the_catalogue_and_can_be_disabled() {
        let rules = app::rules(&DetectorsOptions::default()).unwrap();
        let all = all(&rules);
        assert!(all.is_sorted_by_key(|rule| &rule.name));
        let gap = all.iter().find(|rule| rule.name == alarm::DETECTION);
        let gap = gap.unwrap();
        for text in ["silence", "unfilled", "rebuilt", "items_lost", "Contain:"] {
            assert!(gap.triage.contains(text), "{text}");
        }
        assert!(list::page(&all).contains("## x.audit.gap\n"));
        let without = DetectorsOptions {
            disabled: vec!["x.audit.*".to_owned()],
            ..DetectorsOptions::default()
        };
        assert!(!without.runs(alarm::DETECTION));
    }
}
