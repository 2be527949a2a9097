//! `config check | show | schema`.

use clap::Subcommand;
use exfilwatch_config::Config;
use exfilwatch_model::{Clock, SystemClock};

use crate::app;
use crate::cli::Common;
use crate::cli::failure::{Code, Failure, Outcome};
use crate::cli::output::{Output, Table, print, print_items};
use crate::tuning;

/// What to do with the configuration.
#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Reads the configuration and says everything that is wrong with it.
    Check,
    /// Shows each effective value and where it comes from.
    Show,
    /// Prints the JSON Schema, for editors.
    Schema,
}

/// Runs the command.
pub(crate) fn run(command: ConfigCommand, common: &Common) -> Outcome {
    match command {
        ConfigCommand::Check => check(&app::load_to_detect(common, true)?),
        ConfigCommand::Show => show(&app::load(common, true)?, common.output),
        ConfigCommand::Schema => schema(),
    }
}

fn check(config: &Config) -> Outcome {
    for warning in &config.warnings {
        print(&format!("warning: {warning}\n"))?;
    }
    let now = SystemClock.now();
    let rules = app::rules(&config.detectors)?;
    let tuned = tuning::check(config, &rules, now)?;
    for exception in tuned.exceptions {
        if let Some(warning) = exception.warning(now) {
            print(&format!("warning: {warning}\n"))?;
        }
    }
    if config.disabled.is_empty() && tuned.broken.is_empty() {
        return print(&format!(
            "ok: {}, {}, {}\n",
            counted(config.tenants.len(), "tenant"),
            counted(config.connectors.len(), "connector"),
            counted(config.emitters.len(), "emitter")
        ));
    }
    let mut lines = Vec::new();
    for disabled in &config.disabled {
        lines.extend(disabled.problems.iter().map(ToString::to_string));
    }
    let broken = tuned.broken.iter();
    lines.extend(broken.map(|(tenant, why)| format!("tenant {tenant}: {why}")));
    let what = format!(
        "left out: {}, {}\n{}",
        counted(config.disabled.len(), "included file"),
        counted(tuned.broken.len(), "other tenant"),
        lines.join("\n")
    );
    Err(Failure::new(Code::Usage, what)
        .help("the other tenants run; mend what is named above and check again"))
}

/// `1 tenant`, `2 tenants`.
fn counted(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

fn show(config: &Config, output: Output) -> Outcome {
    let mut table = Table::new(&["KEY", "VALUE", "FROM"]);
    for shown in config.show() {
        table.row([
            shown.path.clone(),
            shown.value.to_string(),
            shown.origin.brief(),
        ]);
    }
    print_items(output, config.show(), &table)
}

fn schema() -> Outcome {
    let text = serde_json::to_string_pretty(&exfilwatch_config::schema())
        .map_err(|error| Failure::caused(Code::State, "writing the schema", &error))?;
    print(&(text + "\n"))
}
