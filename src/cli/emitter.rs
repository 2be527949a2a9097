//! `emitter test`: sends marked items to the receivers by the emitters as `run` would, and says in words
//! what came of each.

use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use exfilwatch_config::Config;
use exfilwatch_emitters::EmitError;
use exfilwatch_model::{Clock, Kind, SystemClock, TenantId};
use serde::Serialize;
use std::sync::Arc;
use tokio::time::{Instant, timeout};

use crate::app;
use crate::cli::Common;
use crate::cli::failure::{Code, Failure, Outcome};
use crate::cli::output::{Output, Table, plain, print, print_items};
use crate::pipeline::{Route, rehearsal};

/// What to do with emitters.
#[derive(Debug, Subcommand)]
pub(crate) enum EmitterCommand {
    /// Sends a marked item of each kind by each route, waits for the receipt, and says what came of it.
    /// Filters are passed over; records are sent only when asked for.
    Test(TestArgs),
}

/// Arguments of `emitter test`.
#[derive(Debug, clap::Args)]
pub(crate) struct TestArgs {
    /// Only this emitter: its name, or kind and name (`splunk_hec.main`).
    name: Option<String>,
    /// The tenant in whose name it is sent: indexes and files may be named after it. Default: the
    /// first.
    #[arg(long)]
    tenant: Option<TenantId>,
    /// Only these kinds. Default: all that the emitter sends but records.
    #[arg(long, value_enum)]
    kind: Vec<KindArg>,
    /// Seconds to wait for a receipt.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    timeout: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum KindArg {
    Findings,
    Signals,
    Internal,
    Events,
}

impl KindArg {
    fn kind(self) -> Kind {
        match self {
            Self::Findings => Kind::Findings,
            Self::Signals => Kind::Signals,
            Self::Internal => Kind::Internal,
            Self::Events => Kind::Events,
        }
    }
}

/// What came of one item.
#[derive(Debug, Serialize)]
struct Tried {
    emitter: String,
    route: String,
    kind: Kind,
    tenant: TenantId,
    /// Id of the item, to look for at the receiver.
    id: String,
    delivered: bool,
    milliseconds: u128,
    /// What the receiver said.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
}

/// Runs the command.
pub(crate) async fn run(command: EmitterCommand, common: Common) -> Outcome {
    let EmitterCommand::Test(args) = command;
    let mut config = app::load(&common, true)?;
    choose(&mut config, args.name.as_deref())?;
    let tenant = tenant(&config, args.tenant.as_ref())?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let kinds: Vec<Kind> = args.kind.iter().map(|kind| kind.kind()).collect();
    let mut tried = Vec::new();
    for route in crate::routes::build(&config, &clock)? {
        for kind in &route.kinds {
            let wanted = match &kinds[..] {
                [] => *kind != Kind::Events,
                kinds => kinds.contains(kind),
            };
            if wanted {
                let limit = Duration::from_secs(args.timeout);
                tried.push(send(&route, (*kind, &tenant), &*clock, limit).await?);
            }
        }
    }
    if tried.is_empty() {
        let what = "nothing was sent: the emitter takes none of these kinds";
        return Err(Failure::new(Code::Usage, what)
            .help("an emitter that takes records only is tested with --kind events"));
    }
    show(&tried, common.output)
}

/// Leaves only the emitter that is asked for.
fn choose(config: &mut Config, name: Option<&str>) -> Outcome {
    let full =
        |one: &exfilwatch_config::EmitterConfig| format!("{}.{}", one.options.kind(), one.name);
    let known: Vec<String> = config.emitters.iter().map(full).collect();
    if let Some(name) = name {
        config
            .emitters
            .retain(|one| one.name == name || full(one) == name);
    }
    if !config.emitters.is_empty() {
        return Ok(());
    }
    let what = match name {
        Some(name) => format!("no emitter is called {name:?}"),
        None => "no emitter is configured".to_owned(),
    };
    let help = if known.is_empty() {
        "add a table such as [emitters.splunk_hec.main]".to_owned()
    } else {
        format!("there are {}", known.join(", "))
    };
    Err(Failure::new(Code::Usage, what).help(help))
}

fn tenant(config: &Config, asked: Option<&TenantId>) -> Result<TenantId, Failure> {
    let known = asked.or_else(|| config.tenants.keys().next());
    match known {
        Some(tenant) => Ok(tenant.clone()),
        None => TenantId::new("default")
            .map_err(|error| Failure::caused(Code::Usage, "naming a tenant", &error)),
    }
}

async fn send(
    route: &Route,
    (kind, tenant): (Kind, &TenantId),
    clock: &dyn Clock,
    limit: Duration,
) -> Result<Tried, Failure> {
    let item = rehearsal::item(kind, tenant, clock.now())
        .map_err(|error| Failure::caused(Code::Usage, "making the test item", &error))?
        .ok_or_else(|| Failure::new(Code::State, "the test item cannot be written"))?;
    let (id, started) = (route.emitter.sent_id(&item), Instant::now());
    let outcome = timeout(limit, route.emitter.emit(&[item])).await;
    let said = match outcome {
        Err(_) => Some((
            format!("no receipt within {} s", limit.as_secs()),
            Some("exfilwatch doctor looks at the way there; --timeout waits longer".to_owned()),
        )),
        Ok(Err(EmitError::Hold { what, help })) => Some((what, Some(help))),
        Ok(Err(error)) => Some((
            error.to_string(),
            Some("exfilwatch doctor looks at the way to the receiver".to_owned()),
        )),
        Ok(Ok(delivered)) => {
            let held = delivered.held.into_iter().next();
            let held = held.map(|held| (held.what, Some(held.help)));
            let refused = delivered.refused.into_iter().next();
            held.or(refused.map(|refused| (refused.reason, None)))
        }
    };
    let delivered = said.is_none();
    let (error, help) = said.map_or((None, None), |(error, help)| (Some(error), help));
    Ok(Tried {
        emitter: route.emitter.name().to_owned(),
        route: route.name.clone(),
        kind,
        tenant: tenant.clone(),
        id,
        delivered,
        milliseconds: started.elapsed().as_millis(),
        error,
        help,
    })
}

fn show(tried: &[Tried], output: Output) -> Outcome {
    if output == Output::Table {
        let mut table = Table::new(&["EMITTER", "ROUTE", "KIND", "TENANT", "OUTCOME", "ID"]);
        for one in tried {
            table.row([
                one.emitter.clone(),
                one.route.clone(),
                one.kind.as_str().to_owned(),
                one.tenant.to_string(),
                if one.delivered {
                    format!("delivered in {} ms", one.milliseconds)
                } else {
                    "NOT DELIVERED".to_owned()
                },
                one.id.clone(),
            ]);
        }
        print(&table.text())?;
    } else {
        print_items(output, tried, &Table::default())?;
    }
    let failed = tried.iter().filter(|one| !one.delivered);
    let lines = failed.map(|one| {
        let help = one.help.as_ref().map(|help| format!("\n    {help}"));
        let error = plain(one.error.as_deref().unwrap_or_default());
        let kind = one.kind.as_str();
        let help = help.unwrap_or_default();
        format!("{} ({}, {kind}): {error}{help}", one.emitter, one.route)
    });
    let lines: Vec<String> = lines.collect();
    if lines.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        Code::Receiver,
        format!("not delivered\n{}", lines.join("\n")),
    ))
}
