//! From the layers to the typed configuration: keeps bad included files apart from the rest.
//!
//! Reads configuration files only; it opens no secret, no store and no connection.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use exfilwatch_detectors::DetectorsOptions;
use exfilwatch_emitters::options::EmitterOptions;
use exfilwatch_model::{Lists, TenantId};
use serde::Serialize;

use crate::checks;
use crate::kinds::{CONNECTORS, ConnectorOptions, EMITTERS};
use crate::layers::{self, Sources};
use crate::lists;
use crate::nearest::suggestion;
use crate::options::{RunOptions, ServeOptions, StateOptions, Tenant};
use crate::origin::{Origin, Problem};
use crate::show::Shown;
use crate::tables::{Item, Tables};

/// The configuration, checked as far as that goes without network, store and secrets.
#[derive(Debug, Clone)]
pub struct Config {
    /// Tenants by alias, without the disabled ones.
    pub tenants: BTreeMap<TenantId, Tenant>,
    /// Connectors; each names a tenant of `tenants`, and no tenant has two of a kind.
    pub connectors: Vec<ConnectorConfig>,
    /// Emitters; no two have the same name.
    pub emitters: Vec<EmitterConfig>,
    /// What the lists of each tenant say; of a tenant without lists, nothing.
    pub lists: BTreeMap<TenantId, Arc<Lists>>,
    /// `[detectors]`
    pub detectors: DetectorsOptions,
    /// `[state]`
    pub state: StateOptions,
    /// `[serve]`
    pub serve: ServeOptions,
    /// `[run]`
    pub run: RunOptions,
    /// Included files that are left out, with all they hold.
    pub disabled: Vec<DisabledFile>,
    /// What is allowed but probably not meant.
    pub warnings: Vec<Problem>,
    shown: Vec<Shown>,
}

impl Config {
    /// Every effective value with where it was set, in order of its path.
    pub fn show(&self) -> &[Shown] {
        &self.shown
    }
}

/// One connector.
#[derive(Debug, Clone)]
pub struct ConnectorConfig {
    /// Its name within its kind.
    pub name: String,
    /// The tenant it reads.
    pub tenant: TenantId,
    /// Its options, with the defaults of its kind below them.
    pub options: ConnectorOptions,
    /// Its table, for messages.
    pub origin: Origin,
}

/// One emitter.
#[derive(Debug, Clone)]
pub struct EmitterConfig {
    /// Its name, unique over all kinds.
    pub name: String,
    /// Its options, with the defaults of its kind below them.
    pub options: EmitterOptions,
    /// Its table, for messages.
    pub origin: Origin,
}

/// An included file that is left out because something in it is wrong.
#[derive(Debug, Clone, Serialize)]
pub struct DisabledFile {
    /// The file.
    pub file: PathBuf,
    /// Tenants it names, as far as could be read.
    pub tenants: Vec<String>,
    /// What is wrong, at least one.
    pub problems: Vec<Problem>,
}

/// The main file, the environment or the flags are wrong: exit code 2. Displayed as one problem a
/// line, `path:line:column: what (help)`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(problems))]
pub struct ConfigError {
    /// Everything that is wrong, included files too; at least one, in order of place.
    pub problems: Vec<Problem>,
}

fn lines(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    lines.join("\n")
}

/// Reads, layers and checks the configuration.
pub fn load(sources: &Sources) -> Result<Config, ConfigError> {
    let layers = layers::read(sources).map_err(|problems| ConfigError { problems })?;
    let tree = &layers.tree;
    let mut tables = Tables::default();
    let detectors: DetectorsOptions = tables.single(tree, "detectors");
    let allowed = lists::faults(&detectors.allow, tree, &Origin::Default);
    tables.problems.extend(allowed);
    let state = tables.single(tree, "state");
    let serve = tables.single(tree, "serve");
    let run = tables.single(tree, "run");
    tables.check_defaults(tree);
    let tenants = tables.tenants(tree);
    let connectors = tables.section(tree, "connectors", CONNECTORS);
    let emitters = tables.section(tree, "emitters", EMITTERS);

    let mut sorting = Sorting {
        included: layers.included,
        unread: layers.unread,
        problems: layers.problems,
        warnings: layers.warnings,
    };
    sorting.problems.append(&mut tables.problems);
    sorting.check(&tenants, &connectors, &emitters, tree);
    let mut lists = BTreeMap::new();
    for item in &tenants {
        let read = lists::read(
            item,
            &detectors.allow,
            &mut sorting.problems,
            &mut sorting.warnings,
        );
        lists.insert(item.name.clone(), Arc::new(read));
    }
    let bad = sorting.bad_files();
    let (connectors, tenants) = (bad.without(connectors), bad.without(tenants));
    let doubles = checks::one_of_a_kind(&connectors);
    sorting.problems.extend(doubles);
    let bad = sorting.bad_files();
    let (connectors, tenants) = (bad.without(connectors), bad.without(tenants));
    let alive: BTreeSet<&str> = tenants.iter().map(|item| item.name.as_str()).collect();
    let disabled = sorting.disabled(&bad, &alive)?;
    let connectors = sorting.connectors_of(&alive, connectors);
    if detectors.enabled {
        let warnings = tenants.iter().flat_map(checks::domain_warnings);
        sorting.warnings.extend(warnings);
    }
    let main = sources.file.as_deref();
    sorting.warn_of_idle(main, &tenants, &connectors, emitters.is_empty());

    let mut shown = tables.shown;
    for item in &tenants {
        item.show(&mut shown);
    }
    for item in &connectors {
        item.show(&mut shown);
    }
    for item in &emitters {
        item.show(&mut shown);
    }
    shown.sort_by(|a, b| a.path.cmp(&b.path));
    sorting.warnings.sort();
    Ok(Config {
        lists: tenants
            .iter()
            .filter_map(|item| {
                let lists = lists.remove(&item.name)?;
                Some((TenantId::new(&item.name).ok()?, lists))
            })
            .collect(),
        tenants: tenants
            .into_iter()
            .filter_map(|item| Some((TenantId::new(&item.name).ok()?, item.options)))
            .collect(),
        connectors: connectors.into_iter().filter_map(connector_of).collect(),
        emitters: emitters.into_iter().map(emitter_of).collect(),
        detectors,
        state,
        serve,
        run,
        disabled,
        warnings: sorting.warnings,
        shown,
    })
}

/// That it names a tenant was checked; one that does not is no connector.
fn connector_of(item: Item<ConnectorOptions>) -> Option<ConnectorConfig> {
    Some(ConnectorConfig {
        tenant: item.options.tenant()?.clone(),
        name: item.name,
        options: item.options,
        origin: item.origin,
    })
}

fn emitter_of(item: Item<EmitterOptions>) -> EmitterConfig {
    EmitterConfig {
        name: item.name,
        options: item.options,
        origin: item.origin,
    }
}

/// Sorts what is wrong: into included files that are left out, and the rest, which stops all.
struct Sorting {
    included: BTreeMap<Arc<Path>, BTreeSet<String>>,
    unread: BTreeSet<Arc<Path>>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

/// Included files with something wrong in them.
struct BadFiles(BTreeSet<Arc<Path>>);

impl BadFiles {
    fn without<T>(&self, mut items: Vec<Item<T>>) -> Vec<Item<T>> {
        items.retain(|item| item.origin.file().is_none_or(|file| !self.0.contains(file)));
        items
    }
}

impl Sorting {
    /// What can only be seen over several tables.
    fn check(
        &mut self,
        tenants: &[Item<Tenant>],
        connectors: &[Item<ConnectorOptions>],
        emitters: &[Item<EmitterOptions>],
        tree: &crate::tree::Table,
    ) {
        let domains = tenants.iter().flat_map(checks::domains);
        self.problems.extend(domains);
        let members = connectors.iter().flat_map(checks::connector);
        self.problems.extend(members);
        self.problems.extend(checks::emitters(emitters));
        self.problems.extend(checks::emitter_names(emitters));
        self.problems.extend(checks::files(emitters));
        self.problems.extend(checks::routes(emitters));
        let here = crate::tree::table_at(tree, "tenants");
        let here = here
            .into_iter()
            .flat_map(|table| table.keys().map(String::as_str));
        let elsewhere = self.included.values().flatten().map(String::as_str);
        let known: BTreeSet<&str> = here.chain(elsewhere).collect();
        let unknown: Vec<Problem> = connectors
            .iter()
            .filter_map(|item| unknown_tenant(item, &known))
            .collect();
        // A tenant nobody knows may stand in a file that could not be read: then only the
        // connector is left out, later.
        if self.unread.is_empty() {
            self.problems.extend(unknown);
        } else {
            self.warnings.extend(unknown);
        }
    }

    fn bad_files(&self) -> BadFiles {
        let files = self
            .problems
            .iter()
            .filter_map(|problem| problem.origin.file());
        let bad = files
            .filter(|file| self.included.contains_key(*file))
            .cloned();
        BadFiles(bad.collect())
    }

    /// The files to be left out, with those of their tenants that are not among `alive`; an error
    /// where something else is wrong too.
    fn disabled(
        &mut self,
        bad: &BadFiles,
        alive: &BTreeSet<&str>,
    ) -> Result<Vec<DisabledFile>, ConfigError> {
        self.problems.sort();
        self.problems.dedup();
        let mut by_file: BTreeMap<&Arc<Path>, Vec<Problem>> = BTreeMap::new();
        for problem in &self.problems {
            match problem.origin.file().filter(|file| bad.0.contains(*file)) {
                Some(file) => by_file.entry(file).or_default().push(problem.clone()),
                None => {
                    return Err(ConfigError {
                        problems: self.problems.clone(),
                    });
                }
            }
        }
        let disabled = by_file.into_iter().map(|(file, problems)| {
            let named = self.included.get(file).into_iter().flatten();
            DisabledFile {
                file: file.to_path_buf(),
                tenants: named
                    .filter(|tenant| !alive.contains(tenant.as_str()))
                    .cloned()
                    .collect(),
                problems,
            }
        });
        Ok(disabled.collect())
    }

    /// The connectors whose tenant is there. The others are left out aloud: their tenant stands in
    /// a file that is left out.
    fn connectors_of(
        &mut self,
        alive: &BTreeSet<&str>,
        connectors: Vec<Item<ConnectorOptions>>,
    ) -> Vec<Item<ConnectorOptions>> {
        let mut kept = Vec::new();
        for item in connectors {
            let tenant = item.options.tenant().map_or("", TenantId::as_str);
            if alive.contains(tenant) {
                kept.push(item);
                continue;
            }
            let what = format!("[{}] is left out with its tenant `{tenant}`", item.path);
            self.warnings.push(Problem::new(&item.origin, what));
        }
        kept
    }

    fn warn_of_idle(
        &mut self,
        main: Option<&Path>,
        tenants: &[Item<Tenant>],
        connectors: &[Item<ConnectorOptions>],
        no_emitter: bool,
    ) {
        let read: BTreeSet<&str> = connectors
            .iter()
            .filter_map(|item| item.options.tenant().map(TenantId::as_str))
            .collect();
        for tenant in tenants
            .iter()
            .filter(|tenant| !read.contains(tenant.name.as_str()))
        {
            let what = format!("no connector reads [{}]", tenant.path);
            self.warnings.push(Problem::new(&tenant.origin, what));
        }
        if no_emitter {
            let place = main.map_or(Origin::Default, |file| Origin::start_of(&Arc::from(file)));
            let what = "no emitter is configured, so that nothing is delivered";
            let help = "add a table such as [emitters.splunk_hec.main] or [emitters.stdout.main]";
            self.warnings.push(Problem::new(&place, what).help(help));
        }
    }
}

fn unknown_tenant(item: &Item<ConnectorOptions>, known: &BTreeSet<&str>) -> Option<Problem> {
    let tenant = item.options.tenant()?.as_str();
    if known.contains(tenant) {
        return None;
    }
    let known: Vec<&str> = known.iter().copied().collect();
    let help = if known.is_empty() {
        format!("add a table [tenants.{tenant}]")
    } else {
        suggestion(tenant, &known)
    };
    let what = format!("there is no tenant `{tenant}`");
    Some(Problem::new(item.place_of("tenant"), what).help(help))
}
