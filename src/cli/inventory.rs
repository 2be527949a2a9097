//! `inventory forwarding`, `inventory sharing`: how things stand. Asked of the running process, of the
//! store where none answers, or worked out from files alone.

use clap::Subcommand;
use exfilwatch_model::{Clock, SystemClock, TenantId};

use crate::app;
use crate::cli::failure::{Code, Failure, Outcome};
use crate::cli::output::{Output, Table, print, print_items};
use crate::cli::status::{asked, at_rest};
use crate::cli::{Common, sources};
use crate::files::Input;
use crate::pipeline::inventory::{Asked, Inventory, Line, Listing, Room, Wants, list, list_of};
use crate::serve::control::{self, Request};

/// Of what.
#[derive(Debug, Subcommand)]
pub(crate) enum InventoryCommand {
    /// Who forwards mail where, since when, set by whom: mailboxes, inbox rules, transport and journal
    /// rules. What goes outside comes first.
    Forwarding(InventoryArgs),
    /// Which documents are open to whom outside, since when, opened by whom, and when somebody outside
    /// was last seen to use it. What is open to anyone comes first.
    Sharing(InventoryArgs),
}

/// Arguments of both.
#[derive(Debug, clap::Args)]
pub(crate) struct InventoryArgs {
    /// Only this tenant. With files: the tenant they are of.
    #[arg(long)]
    tenant: Option<TenantId>,
    /// Only what has to do with this address: its mailbox or documents, what it has set, what goes to it.
    #[arg(long, value_name = "ADDRESS")]
    actor: Option<String>,
    /// At most so many lines.
    #[arg(long, default_value_t = 200)]
    limit: usize,
    /// Not from the state but from files with native records, as replay reads them.
    #[arg(value_name = "FILE")]
    files: Vec<String>,
    /// With files: a domain of the organisation; may be repeated. Without any, the actor's own counts.
    #[arg(long, value_name = "DOMAIN", requires = "files")]
    internal_domain: Vec<String>,
}

/// Runs the command.
pub(crate) async fn run(command: InventoryCommand, common: Common) -> Outcome {
    let (room, args) = match command {
        InventoryCommand::Forwarding(args) => (Room::Forwarding, args),
        InventoryCommand::Sharing(args) => (Room::Sharing, args),
    };
    let request = Asked {
        room,
        tenant: args.tenant.clone(),
        actor: args.actor.clone(),
        limit: args.limit,
    };
    let listing = if args.files.is_empty() {
        of_state(&request, &common).await?
    } else {
        of_files(&args, &request)?
    };
    told(&listing);
    if listing.lines.is_empty() && common.output == Output::Table {
        return print("nothing that is known stands open\n");
    }
    print_items(common.output, &listing.lines, &table(room, &listing.lines))
}

async fn of_state(request: &Asked, common: &Common) -> Result<Listing, Failure> {
    let config = app::load(common, common.state.is_none())?;
    let asking = Request::Inventory(request.clone());
    match asked(control::ask(&config.state.folder, &asking).await)? {
        Some(listing) => Ok(listing),
        None => at_rest(&config, |store, _| list(store, request)),
    }
}

fn of_files(args: &InventoryArgs, request: &Asked) -> Result<Listing, Failure> {
    let tenant = match &args.tenant {
        Some(tenant) => tenant.clone(),
        None => TenantId::new("default")
            .map_err(|error| Failure::caused(Code::Usage, "naming the tenant", &error))?,
    };
    let readers = app::readers(&args.internal_domain, &[]);
    let (mut inventory, mut wants) = (Inventory::default(), Wants::default());
    let now = SystemClock.now();
    for argument in &args.files {
        let input = Input::from_argument(argument);
        for batch in sources::open(&input)? {
            let batch = batch.map_err(|error| sources::broken(&error))?;
            for malformed in &batch.malformed {
                tracing::warn!(file = %input, reason = %malformed.reason, "left out");
            }
            for (product, record) in &batch.records {
                let reader = readers.of(*product);
                let kept = reader.head(record).and_then(|head| {
                    let wanted = wants.record(reader, record, &head);
                    if wanted {
                        reader.normalise(record, now)
                    } else {
                        Ok(Vec::new())
                    }
                });
                match kept {
                    Ok(events) => inventory.fold(&events),
                    Err(error) => tracing::warn!(file = %input, %error, "left out"),
                }
            }
        }
    }
    Ok(list_of(&tenant, &inventory, request))
}

fn told(listing: &Listing) {
    if listing.left_out > 0 {
        tracing::warn!(
            left_out = listing.left_out,
            "there is more: narrow it by --tenant or --actor, or raise --limit"
        );
    }
    if listing.evicted > 0 {
        tracing::warn!(
            evicted = listing.evicted,
            "the inventory was full: those that were silent longest were let go"
        );
    }
}

fn table(room: Room, lines: &[Line]) -> Table {
    match room {
        Room::Forwarding => forwarding(lines),
        Room::Sharing => sharing(lines),
    }
}

fn forwarding(lines: &[Line]) -> Table {
    let head = [
        "MAILBOX", "TO", "WHERE", "VIA", "RULE", "SINCE", "SET BY", "TENANT", "NOTE",
    ];
    let mut table = Table::new(&head);
    for line in lines {
        let directions = line.to.iter().map(|to| to.direction.as_str());
        table.row([
            line.of.clone(),
            destinations(line),
            directions.min().unwrap_or("unknown").to_owned(),
            line.via.clone(),
            or_dash(line.name.as_ref()),
            minute(line.since),
            or_dash(line.by.as_ref()),
            line.tenant.to_string(),
            line.doubt.clone().unwrap_or_default(),
        ]);
    }
    table
}

fn sharing(lines: &[Line]) -> Table {
    let head = [
        "DOCUMENT",
        "OPEN TO",
        "CLASS",
        "ROLE",
        "SINCE",
        "OPENED BY",
        "LAST ACCESS",
        "TENANT",
        "WHERE",
        "NOTE",
    ];
    let mut table = Table::new(&head);
    for line in lines {
        let access = line.last_access.map(|at| {
            let by = line.last_access_by.as_deref().unwrap_or("somebody");
            format!("{} {by}", minute(at))
        });
        table.row([
            or_dash(line.name.as_ref()),
            destinations(line),
            or_dash(line.class.as_ref()),
            or_dash(line.role.as_ref()),
            minute(line.since),
            or_dash(line.by.as_ref()),
            or_dash(access.as_ref()),
            line.tenant.to_string(),
            line.of.clone(),
            line.doubt.clone().unwrap_or_default(),
        ]);
    }
    table
}

fn destinations(line: &Line) -> String {
    let addresses: Vec<&str> = line.to.iter().map(|to| to.address.as_str()).collect();
    match (addresses.is_empty(), line.more) {
        (true, _) => "(not named)".to_owned(),
        (false, true) => addresses.join(", ") + ", …",
        (false, false) => addresses.join(", "),
    }
}

fn or_dash(text: Option<&String>) -> String {
    text.cloned().unwrap_or_else(|| "-".to_owned())
}

fn minute(at: chrono::DateTime<chrono::Utc>) -> String {
    at.format("%Y-%m-%d %H:%M").to_string()
}
