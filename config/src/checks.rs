//! What can only be seen by looking at several members or tables together.
//!
//! Each check is pure: it takes what was read and gives sentences with places.

use std::collections::BTreeMap;

use exfilwatch_connectors::options::{GoogleWorkspaceOptions, Office365Options};
use exfilwatch_emitters::options::EmitterOptions;
use exfilwatch_emitters::{BuildError, registry};
use exfilwatch_model::domains::registrable;
use exfilwatch_model::{Domains, PartyClass};

use crate::kinds::ConnectorOptions;
use crate::options::{AUTO, Tenant};
use crate::origin::Problem;
use crate::tables::Item;
use crate::tree::{Node, Value};

/// How domains are given, for messages.
const DOMAINS_HELP: &str = "list the organisation's domains: internal_domains = \
                            [\"contoso.example\"], or ask the vendors for them: \"auto\"";

/// What a connector lacks, or has in a form that no vendor takes.
pub(crate) fn connector(item: &Item<ConnectorOptions>) -> Vec<Problem> {
    let mut problems = match &item.options {
        ConnectorOptions::Office365(options) => office365(item, options),
        ConnectorOptions::GoogleWorkspace(options) => google_workspace(item, options),
    };
    if item.options.tenant().is_none() {
        let help = "name a table of [tenants]: tenant = \"…\"";
        problems.push(missing(item, "tenant", help));
    }
    problems
}

fn office365(item: &Item<ConnectorOptions>, options: &Office365Options) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (key, value, required, help) in [
        (
            "tenant_id",
            &options.tenant_id,
            true,
            "the directory (tenant) id on the overview page of the app registration in Entra",
        ),
        (
            "client_id",
            &options.client_id,
            true,
            "the application (client) id on the overview page of the app registration in Entra",
        ),
        (
            "publisher_identifier",
            &options.publisher_identifier,
            false,
            "normally the same as tenant_id; it may be left out",
        ),
    ] {
        match value {
            Some(text) if !is_guid(text) => {
                let what =
                    format!("`{key}` must be a GUID, as in 01234567-89ab-cdef-0123-456789abcdef");
                problems.push(Problem::new(item.place_of(key), what).help(help));
            }
            None if required => problems.push(missing(item, key, help)),
            _ => {}
        }
    }
    let ways = ["certificate", "client_secret"];
    let given = [
        options.certificate.is_some(),
        options.client_secret.is_some(),
    ];
    problems.extend(exactly_one(item, ways, given));
    problems
}

fn google_workspace(
    item: &Item<ConnectorOptions>,
    options: &GoogleWorkspaceOptions,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let ways = ["service_account", "refresh_token"];
    let given = [
        options.service_account.is_some(),
        options.refresh_token.is_some(),
    ];
    problems.extend(exactly_one(item, ways, given));
    match &options.subject {
        Some(subject) if !is_address(subject) => {
            let what = "`subject` must be the e-mail address of an administrator";
            problems.push(Problem::new(item.place_of("subject"), what));
        }
        None if options.service_account.is_some() => {
            let help = "the administrator for whom the service account reads: subject = \"audit-reader@contoso.example\"";
            problems.push(missing(item, "subject", help));
        }
        _ => {}
    }
    let asks = |name: &str| {
        let names = options.applications.as_deref().unwrap_or_default();
        names.iter().any(|known| known == name)
    };
    if options.service_account.is_none() && asks("alertcenter") {
        let what = "`alertcenter` is read by a service account with delegation only";
        let help = "leave it out, or give service_account in place of refresh_token";
        problems.push(Problem::new(item.place_of("applications"), what).help(help));
    }
    problems
}

fn missing<T>(item: &Item<T>, key: &str, help: &str) -> Problem {
    let what = format!("`{key}` is missing in [{}]", item.path);
    Problem::new(&item.origin, what).help(help)
}

fn exactly_one<T>(item: &Item<T>, ways: [&str; 2], given: [bool; 2]) -> Option<Problem> {
    let [first, second] = ways;
    match given {
        [false, false] => {
            let what = format!("`{first}` or `{second}` is missing in [{}]", item.path);
            let help = format!("for example {first} = {{ file = \"…\" }}");
            Some(Problem::new(&item.origin, what).help(help))
        }
        [true, true] => {
            let what = format!("`{first}` and `{second}` exclude each other");
            Some(Problem::new(item.place_of(second), what).help("remove one of them"))
        }
        _ => None,
    }
}

/// 8-4-4-4-12 hexadecimal digits, as Entra shows ids.
fn is_guid(text: &str) -> bool {
    let lengths = [8, 4, 4, 4, 12];
    let groups: Vec<&str> = text.split('-').collect();
    groups.len() == lengths.len()
        && groups.iter().zip(lengths).all(|(group, length)| {
            group.len() == length && group.chars().all(|c| c.is_ascii_hexdigit())
        })
}

fn is_address(text: &str) -> bool {
    let plain = !text.contains(char::is_whitespace);
    plain
        && text
            .split_once('@')
            .is_some_and(|(name, domain)| !name.is_empty() && domain.contains('.'))
}

/// Domains that cannot be what was meant.
pub(crate) fn domains(item: &Item<Tenant>) -> Vec<Problem> {
    ["internal_domains", "partners"]
        .into_iter()
        .filter_map(|key| Some((key, item.table.get(key)?)))
        .flat_map(
            |(key, entry)| match entry.node.expanded().into_owned().value {
                Value::Array(mut items) => {
                    items.retain(|node| key == "partners" || node.text() != Some(AUTO));
                    items
                }
                _ => Vec::new(),
            },
        )
        .filter_map(|node| domain(&node))
        .collect()
}

fn domain(node: &Node) -> Option<Problem> {
    let written = node.text()?;
    let text = written.trim_start_matches(['@', '.']).to_lowercase();
    let fault = |what: &str, help: &str| {
        let what = format!("`{written}` {what}");
        Some(Problem::new(&node.origin, what).help(help))
    };
    if text.contains('*') {
        return fault(
            "holds a `*`",
            "what is below a domain belongs to it anyway: leave out `*.`",
        );
    }
    let plain = |c: char| c.is_alphanumeric() || c == '-' || c == '.';
    if !text.chars().all(plain) || text.is_empty() || text.contains("..") {
        return fault(
            "is not a domain",
            "only the part after the @, as in contoso.example",
        );
    }
    // A name below a public suffix is registrable itself.
    let below = format!("probe.{text}");
    if !text.contains('.') || registrable(&below) == below {
        let help = "everyone can register a name below it; give the organisation's own domain";
        return fault("is a public suffix", help);
    }
    None
}

/// Tenants of which inside and outside cannot be told, or surely not as meant.
pub(crate) fn domain_warnings(item: &Item<Tenant>) -> Vec<Problem> {
    let listed = item.options.listed_domains();
    if listed.is_empty() && !item.options.asks_for_domains() {
        let what = format!("no internal domain is known in [{}]", item.path);
        return vec![Problem::new(&item.origin, what).help(DOMAINS_HELP)];
    }
    listed
        .iter()
        .filter(|domain| {
            let party = Domains::default().party(&format!("x@{}", domain.trim_start_matches('@')));
            party.class == PartyClass::FreeMail
        })
        .map(|domain| {
            let what = format!("everyone with a mailbox at {domain} counts as internal");
            Problem::new(item.place_of("internal_domains"), what)
        })
        .collect()
}

/// Options of emitters that cannot be used, or not together.
pub(crate) fn emitters(items: &[Item<EmitterOptions>]) -> Vec<Problem> {
    let wrong = |item: &Item<EmitterOptions>| {
        let name = format!("{}.{}", item.options.kind(), item.name);
        match registry::check(&name, &item.options).err()? {
            BuildError::Option { member, reason, .. } => {
                let key = member.split(',').next().unwrap_or_default();
                let what = format!("`{member}`: {reason}");
                Some(Problem::new(item.place_of(key), what))
            }
            other => Some(Problem::new(&item.origin, other.to_string())),
        }
    };
    items.iter().filter_map(wrong).collect()
}

/// Emitters that have the same name in two kinds: their marks in the store would be one.
pub(crate) fn emitter_names(items: &[Item<EmitterOptions>]) -> Vec<Problem> {
    doubles(items, |item| Some(item.name.clone()))
        .map(|(first, second)| {
            let what = format!(
                "[{}] has the same name as [{}] at {}",
                second.path, first.path, first.origin
            );
            Problem::new(&second.origin, what).help("emitters of all kinds need different names")
        })
        .collect()
}

/// Emitters that would write the same file: the lines of the one would be rotated away by the other.
pub(crate) fn files(items: &[Item<EmitterOptions>]) -> Vec<Problem> {
    let path = |item: &Item<EmitterOptions>| match &item.options {
        EmitterOptions::Ndjson(options) => Some(options.path.clone()),
        EmitterOptions::Archive(options) => Some(options.folder.clone()),
        EmitterOptions::SplunkHec(_)
        | EmitterOptions::Syslog(_)
        | EmitterOptions::Stdout(_)
        | EmitterOptions::Webhook(_) => None,
    };
    doubles(items, path)
        .map(|(first, second)| {
            let what = format!(
                "[{}] writes the same place as [{}] at {}",
                second.path, first.path, first.origin
            );
            Problem::new(&second.origin, what).help("give each emitter a file or folder of its own")
        })
        .collect()
}

/// Routes that cannot be, or that ask of the emitter what its kind has not.
pub(crate) fn routes(items: &[Item<EmitterOptions>]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for item in items {
        let emitter = format!("{}.{}", item.options.kind(), item.name);
        for (name, route) in &item.options.routes() {
            if let Err(error) = item.options.on_route(&emitter, name, route) {
                problems.push(Problem::new(item.place_of("routes"), error.to_string()));
            }
        }
    }
    problems
}

/// Tenants with two connectors of a kind: their streams would have the same names.
pub(crate) fn one_of_a_kind(items: &[Item<ConnectorOptions>]) -> Vec<Problem> {
    doubles(items, |item| {
        Some((item.options.kind(), item.options.tenant()?.clone()))
    })
    .map(|(first, second)| {
        let what = format!(
            "[{}] reads the same tenant as [{}] at {}",
            second.path, first.path, first.origin
        );
        Problem::new(second.place_of("tenant"), what).help("a tenant has one connector of a kind")
    })
    .collect()
}

/// Pairs with the same key, each with the first that had it.
fn doubles<'a, T, K: Ord>(
    items: &'a [Item<T>],
    key: impl Fn(&Item<T>) -> Option<K> + 'a,
) -> impl Iterator<Item = (&'a Item<T>, &'a Item<T>)> {
    let mut first: BTreeMap<K, &'a Item<T>> = BTreeMap::new();
    items.iter().filter_map(move |item| {
        let key = key(item)?;
        let earlier = first.get(&key).copied();
        if earlier.is_none() {
            first.insert(key, item);
        }
        Some((earlier?, item))
    })
}
