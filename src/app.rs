//! Assembly: from the configuration to connectors, emitters, rules and state. Every failure here
//! says what to do; a tenant that cannot be built is left out aloud, the others go on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_config::{Config, ConnectorConfig, ConnectorOptions, Sources};
use exfilwatch_connectors::Connector;
use exfilwatch_connectors::kernel::surroundings::{BuildError, Surroundings};
use exfilwatch_connectors::options::RecordIdentity;
use exfilwatch_connectors::records::google::GoogleRecords;
use exfilwatch_connectors::records::microsoft::Microsoft365Records;
use exfilwatch_connectors::registry::AnyOptions;
use exfilwatch_detectors::{DetectorsOptions, RuleError, RuleSet};
use exfilwatch_model::{Clock, Domains, JobId, LiveDomains, Product, TenantId};
use exfilwatch_state::{Commit, JobState, Options, State, StateError};
use tokio::sync::mpsc;

use crate::cli::failure::{Code, Failure};
use crate::cli::{Common, environment};
use crate::geoip;
use crate::pipeline::alarm::{self, AlarmOptions, Alarms};
use crate::pipeline::job::plan::{self, Basis, Plan};
use crate::pipeline::job::{self, JobEnd, JobKind, JobRequest, Progress, Reports};
use crate::pipeline::ledger::SilenceOptions;
use crate::pipeline::memory::TenantMemory;
use crate::pipeline::opening;
use crate::pipeline::own_domains::{Configured, TenantDomains};
use crate::pipeline::step::{Purpose, Readers, StepConfig};
use crate::pipeline::worker::{Shared, WorkerConfig};
use crate::pipeline::{Pipeline, Undelivered};
use crate::routes;
use crate::tuning::{self, Standing};

/// Reads the configuration. `required` makes a missing file an error; where it is not, defaults
/// serve.
pub fn load(common: &Common, required: bool) -> Result<Config, Failure> {
    let file = common.config.exists().then(|| common.config.clone());
    if required && file.is_none() {
        let what = format!("there is no configuration file {}", common.config.display());
        let help = "exfilwatch init writes one; --config names another; to look at it all without \
                    one: exfilwatch demo";
        return Err(Failure::new(Code::Usage, what).help(help));
    }
    let mut flags = Vec::new();
    for set in &common.set {
        let Some((path, value)) = set.split_once('=') else {
            let what = format!("--set {set}: expected PATH=VALUE");
            return Err(Failure::new(Code::Usage, what));
        };
        flags.push((path.to_owned(), value.to_owned()));
    }
    if let Some(folder) = &common.state {
        flags.push(("state.folder".to_owned(), folder.display().to_string()));
    }
    let sources = Sources {
        file,
        environment: environment::configuration(),
        flags,
    };
    let config = exfilwatch_config::load(&sources).map_err(|error| {
        Failure::new(Code::Usage, format!("the configuration is wrong\n{error}"))
            .help("exfilwatch config check says the same; exfilwatch config schema lists all keys")
    })?;
    for disabled in &config.disabled {
        for problem in &disabled.problems {
            tracing::error!(file = %disabled.file.display(), %problem, tenants = ?disabled.tenants, "tenant file left out");
        }
    }
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    Ok(config)
}

/// The same, with all that records are looked at by: for commands that detect.
pub fn load_to_detect(common: &Common, required: bool) -> Result<Config, Failure> {
    let mut config = load(common, required)?;
    geoip::fill(&mut config)?;
    Ok(config)
}

/// The rules: built in, overlaid by a folder, less the disabled ones. The cases of those that are built in
/// are left out: see [`rules_with_cases`].
pub fn rules(options: &DetectorsOptions) -> Result<Arc<RuleSet>, Failure> {
    rules_for(options, &[])
}

/// The same for who asks only for the rules of these names (none: all).
pub fn rules_for(options: &DetectorsOptions, names: &[String]) -> Result<Arc<RuleSet>, Failure> {
    usable(RuleSet::load_for(options, names))
}

/// The same as [`rules`], to be shown or tried.
pub fn rules_with_cases(options: &DetectorsOptions) -> Result<Arc<RuleSet>, Failure> {
    usable(RuleSet::load(options))
}

fn usable(rules: Result<RuleSet, RuleError>) -> Result<Arc<RuleSet>, Failure> {
    let rules = rules.map_err(|error| {
        Failure::caused(Code::Usage, "the rules cannot be loaded", &error)
            .help("docs/RULE-FILES.md says how a rule file is written")
    })?;
    if !rules.skipped().is_empty() {
        let count = rules.skipped().len();
        tracing::warn!(
            count,
            "stock rules can never match and are left out; exfilwatch rules sigma DIR says why"
        );
    }
    for skipped in rules.skipped() {
        tracing::info!(file = %skipped.file, rule = %skipped.title, reason = %skipped.reason, "rule left out");
    }
    Ok(Arc::new(rules))
}

/// Record readers that know these domains.
pub fn readers<S: AsRef<str>>(internal: &[S], partners: &[S]) -> Readers {
    readers_of(Domains::new(internal, partners))
}

/// See [`readers`]; with [`LiveDomains`], readers that know those known at the time.
pub fn readers_of(domains: impl Into<LiveDomains>) -> Readers {
    let domains = domains.into();
    Readers {
        m365: Arc::new(Microsoft365Records::new(domains.clone())),
        google: Arc::new(GoogleRecords::new(domains)),
    }
}

/// Readers of a tenant that is polled: its connectors say by what records are told apart.
fn readers_of_tenant(config: &Config, tenant: &TenantId, domains: LiveDomains) -> Readers {
    let by_content = config.connectors.iter().any(|connector| {
        let ConnectorOptions::Office365(options) = &connector.options else {
            return false;
        };
        connector.tenant == *tenant && options.record_identity == Some(RecordIdentity::Content)
    });
    let readers = readers_of(domains.clone());
    if !by_content {
        return readers;
    }
    let m365 = Microsoft365Records::new(domains).identified_by(RecordIdentity::Content);
    Readers {
        m365: Arc::new(m365),
        ..readers
    }
}

/// Opens the state folder of a configuration. What was lost and rebuilt on the way is announced to
/// the receivers in the same breath, whoever opened it.
pub fn open_state(config: &Config, now: DateTime<Utc>) -> Result<State, Failure> {
    let folder = &config.state.folder;
    let mut opened = State::open(folder, now, Options::default()).map_err(|e| state_failure(&e))?;
    if let Some(report) = &opened.rebuilt {
        tracing::error!(
            reason = %report.reason, restarts = report.restarts.len(),
            "the store was lost and has been rebuilt; duplicates may follow, losses not"
        );
    }
    if let Some(damage) = &opened.outbox_damage {
        tracing::error!(reason = %damage.reason, "items of the outbox are lost");
    }
    let product = |tenant: &TenantId| {
        let mut connectors = config.connectors.iter();
        let one = connectors.find(|connector| connector.tenant == *tenant);
        one.map_or(Product::M365, |connector| match connector.options {
            ConnectorOptions::Office365(_) => Product::M365,
            ConnectorOptions::GoogleWorkspace(_) => Product::GoogleWorkspace,
        })
    };
    let tenants: Vec<_> = config
        .tenants
        .keys()
        .map(|tenant| (tenant.clone(), product(tenant)))
        .collect();
    let raises = |tenant: &TenantId| raises_alarms(config, tenant);
    let told = opening::announcements(&opened.untold, &tenants, &raises, now);
    if !told.is_empty() {
        opened
            .state
            .commit_group(told)
            .map_err(|error| state_failure(&error))?;
    }
    Ok(opened.state)
}

/// A state error as a failed command.
pub fn state_failure(error: &StateError) -> Failure {
    let failure = Failure::caused(Code::State, "the state cannot be used", error);
    match error {
        StateError::Locked { .. } => failure.help(
            "stop that process, or give this one another folder with --state; status, gaps and \
             backfill talk to a running `exfilwatch run` by themselves",
        ),
        StateError::Version { .. } => failure.help("install the newer exfilwatch again"),
        StateError::Io { .. } => failure.help("check space and permissions of the state folder"),
        _ => failure,
    }
}

/// A process that had to stop by itself fails with the reason.
pub fn fatal(pipeline: &Pipeline) -> Result<(), Failure> {
    match pipeline.shared().watch.copy().fatal {
        Some(why) => Err(Failure::new(Code::State, why)
            .help("nothing that was committed is lost: run the command again")),
        None => Ok(()),
    }
}

/// Items that could not be delivered, as a failed command.
pub fn undelivered(lanes: &[Undelivered], folder: &Path) -> Failure {
    let lines = lanes.iter().map(|waits| {
        let reason = waits.reason.as_deref().unwrap_or("no answer yet");
        format!(
            "{} ({}): {reason}",
            waits.lane.emitter,
            waits.lane.kind.as_str()
        )
    });
    let lines: Vec<_> = lines.collect();
    let what = format!("not everything could be delivered\n{}", lines.join("\n"));
    Failure::new(Code::Receiver, what).help(format!(
        "nothing is lost: what waits is kept in {} and goes out at the next run, backfill or forward",
        folder.display()
    ))
}

/// What is run for each tenant.
#[derive(Debug, Clone)]
pub struct Tenants {
    /// Tenants with their connectors.
    pub workers: Vec<WorkerConfig>,
    /// Their own domains, in the same order.
    pub domains: Vec<TenantDomains>,
}

/// Connectors by tenant.
pub type Connectors = BTreeMap<TenantId, Vec<Arc<dyn Connector>>>;

/// The connectors of all tenants, for what needs no records read: their readers know the configured
/// domains only.
pub fn connectors(config: &Config, clock: &Arc<dyn Clock>) -> Result<Connectors, Failure> {
    let surroundings = Surroundings::new(clock.clone(), Arc::new(environment::variable));
    let domains = |tenant: &TenantId| Some(config.tenants.get(tenant)?.domains(&[]).into());
    built(config, &surroundings, domains, &BTreeMap::new())
}

/// Builds the connectors of all tenants but those that are left out already, and why. One that cannot
/// be built disables its tenant only; when none is left that is an error.
fn built(
    config: &Config,
    surroundings: &Surroundings,
    domains_of: impl Fn(&TenantId) -> Option<LiveDomains>,
    left_out: &BTreeMap<TenantId, String>,
) -> Result<Connectors, Failure> {
    let mut built = Connectors::new();
    let mut broken: Vec<String> = Vec::new();
    for (tenant, why) in left_out {
        tracing::error!(%tenant, %why, "tenant left out");
        broken.push(format!("tenant {tenant}: {why}"));
    }
    let mut disabled: BTreeSet<TenantId> = left_out.keys().cloned().collect();
    for connector in &config.connectors {
        let Some(domains) = domains_of(&connector.tenant) else {
            continue;
        };
        if left_out.contains_key(&connector.tenant) {
            continue;
        }
        let readers = readers_of_tenant(config, &connector.tenant, domains);
        match build(connector, &readers, surroundings) {
            Ok(one) => built.entry(connector.tenant.clone()).or_default().push(one),
            Err(error) => {
                let what = format!(
                    "{}: connector {}: {error}",
                    connector.origin, connector.name
                );
                tracing::error!(tenant = %connector.tenant, %what, "tenant left out");
                broken.push(what);
                disabled.insert(connector.tenant.clone());
            }
        }
    }
    built.retain(|tenant, _| !disabled.contains(tenant));
    if built.is_empty() {
        return Err(nothing_to_poll(&broken));
    }
    Ok(built)
}

/// Builds all tenants with what they remember.
pub fn tenants(
    config: &Config,
    rules: &Arc<RuleSet>,
    clock: &Arc<dyn Clock>,
    forwards_events: bool,
    shared: &Shared,
) -> Result<Tenants, Failure> {
    let surroundings = Surroundings::new(clock.clone(), Arc::new(environment::variable));
    let mut domains = own_domains(config, &surroundings, shared)?;
    let live = |tenant: &TenantId| Some(domains.get(tenant)?.live());
    let mut tuned = tuning::check(config, rules, clock.now())?;
    let built = built(config, &surroundings, live, &tuned.broken)?;
    let polled = |one: &Standing| built.keys().any(|tenant| tenant.as_str() == one.tenant);
    tuned.exceptions.retain(polled);
    shared.watch.exceptions(tuned.exceptions);
    let mut tenants = Tenants {
        workers: Vec::new(),
        domains: Vec::new(),
    };
    let archives = routes::archives(config);
    for (tenant, connectors) in built {
        let (own, own_rules) = (domains.remove(&tenant), tuned.rules.remove(&tenant));
        let (Some(own), Some(rules)) = (own, own_rules) else {
            continue;
        };
        let readers = readers_of_tenant(config, &tenant, own.live());
        let step = StepConfig {
            live_since: live_since(&tenant, shared).map_err(|error| state_failure(&error))?,
            memory: memory(tenant.clone(), shared)?,
            job: JobId::live(),
            readers,
            rules: rules.into(),
            forwards_events,
            purpose: Purpose::Deliver,
        };
        tenants.domains.push(own);
        tenants.workers.push(WorkerConfig {
            connectors,
            step,
            heartbeat: seconds(config.run.heartbeat_interval_seconds),
            alarms: Alarms::new(alarms(config), raises_alarms(config, &tenant)),
            first_run: TimeDelta::days(i64::from(config.run.first_read_days)),
            archives: archives.clone(),
        });
    }
    Ok(tenants)
}

/// Whether `x.audit.gap` is run for a tenant.
pub fn raises_alarms(config: &Config, tenant: &TenantId) -> bool {
    tuning::runs(config, tenant, alarm::DETECTION)
}

/// When `x.audit.gap` fires.
fn alarms(config: &Config) -> AlarmOptions {
    AlarmOptions {
        silence: SilenceOptions {
            hours_min: config.run.silence_hours_min,
            hours: config.run.silence_hours.clone(),
        },
        gap_warning: TimeDelta::hours(i64::from(config.run.gap_warning_hours)),
    }
}

/// A span out of the configuration.
pub(crate) fn seconds(count: u64) -> TimeDelta {
    TimeDelta::seconds(i64::try_from(count).unwrap_or(i64::MAX / 1_000))
}

/// A tenant's memory, read from the store.
pub fn memory(tenant: TenantId, shared: &Shared) -> Result<TenantMemory, Failure> {
    let today = shared.clock.now().date_naive();
    TenantMemory::load(&*shared.store, tenant, today, shared.seen_budget.clone())
        .map_err(|error| state_failure(&error))
}

fn nothing_to_poll(broken: &[String]) -> Failure {
    if broken.is_empty() {
        return Failure::new(Code::Usage, "no tenant with a connector is configured").help(
            "exfilwatch init adds a tenant with its connectors, or write [tenants.…] and \
                   [connectors.…] tables (see config/examples/)",
        );
    }
    Failure::new(
        Code::Usage,
        format!("no tenant can be polled\n{}", broken.join("\n")),
    )
    .help("mend the connectors named above; exfilwatch config show lists the effective values")
}

/// What each tenant knows of its domains, and who can be asked.
fn own_domains(
    config: &Config,
    surroundings: &Surroundings,
    shared: &Shared,
) -> Result<BTreeMap<TenantId, TenantDomains>, Failure> {
    let mut all = BTreeMap::new();
    for (tenant, options) in &config.tenants {
        let mut sources = Vec::new();
        let connectors = config.connectors.iter().filter(|c| c.tenant == *tenant);
        for connector in connectors.filter(|_| options.asks_for_domains()) {
            match options_of(connector).own_domains(surroundings) {
                Ok(source) => sources.push(source),
                // What is wrong with its credential is told when the connector is built.
                Err(error) => {
                    tracing::debug!(connector = %connector.name, %error, "not asked for domains");
                }
            }
        }
        let configured = configured_domains(config, tenant);
        let own = TenantDomains::restore(tenant.clone(), configured, sources, &*shared.store);
        all.insert(tenant.clone(), own.map_err(|error| state_failure(&error))?);
    }
    Ok(all)
}

/// What the configuration says of a tenant's domains, people and apps.
pub fn configured_domains(config: &Config, tenant: &TenantId) -> Configured {
    let Some(options) = config.tenants.get(tenant) else {
        return Configured::default();
    };
    let listed = options.listed_domains().into_iter().map(str::to_owned);
    Configured {
        listed: listed.collect(),
        partners: options.partners.clone(),
        lists: config.lists.get(tenant).cloned().unwrap_or_default(),
    }
}

/// The options of a connector, as its crate has them.
pub fn options_of(connector: &ConnectorConfig) -> AnyOptions {
    match &connector.options {
        ConnectorOptions::Office365(options) => AnyOptions::Office365(Box::new(options.clone())),
        ConnectorOptions::GoogleWorkspace(options) => {
            AnyOptions::GoogleWorkspace(Box::new(options.clone()))
        }
    }
}

/// Builds a connector.
pub fn build(
    connector: &ConnectorConfig,
    readers: &Readers,
    surroundings: &Surroundings,
) -> Result<Arc<dyn Connector>, BuildError> {
    let options = options_of(connector);
    options.build(readers.shared(options.product()), surroundings)
}

/// When the tenant was first polled: what happened before is marked as backfill.
fn live_since(tenant: &TenantId, shared: &Shared) -> Result<DateTime<Utc>, StateError> {
    let Ok(id) = JobId::new(&format!("live:{tenant}")) else {
        return Ok(shared.clock.now());
    };
    let known = shared
        .store
        .jobs()?
        .into_iter()
        .find(|state| state.job == id);
    let since = known.and_then(|state| state.state.parse::<DateTime<Utc>>().ok());
    if let Some(since) = since {
        return Ok(since);
    }
    let now = shared.clock.now();
    let jobs = vec![JobState {
        job: id,
        state: now.to_rfc3339(),
        finished: false,
    }];
    let commit = Commit {
        jobs,
        ..Commit::default()
    };
    let committer = shared.committer.clone();
    tokio::spawn(async move { committer.ride_along(commit).await });
    Ok(now)
}

/// Whether the rules that a job names are there, in one set of several at least.
pub fn check_rules_of_job<'a>(
    sets: impl IntoIterator<Item = &'a Arc<RuleSet>>,
    names: &[String],
) -> Result<(), Failure> {
    let sets: Vec<_> = sets.into_iter().collect();
    for name in names {
        let name = std::slice::from_ref(name);
        if !sets.iter().any(|rules| rules.only(name).is_ok()) {
            let what = format!("no rule is called {:?}", name.concat());
            return Err(Failure::new(Code::Usage, what).help(
                "exfilwatch rules list names them all; --rule takes an id, a name or a pattern",
            ));
        }
    }
    Ok(())
}

impl Tenants {
    /// Plans a job for all tenants it is for.
    pub async fn plan(
        &self,
        request: &JobRequest,
        clock: &dyn Clock,
        beside_live: bool,
    ) -> Vec<Plan> {
        let mut plans = Vec::new();
        for worker in &self.workers {
            if request.is_for_tenant(worker.step.memory.tenant()) {
                let basis = Basis {
                    connectors: &worker.connectors,
                    longest: worker.step.rules.get().longest_window(),
                    beside_live,
                };
                plans.push(plan::plan(request, basis, clock).await);
            }
        }
        plans
    }

    /// Runs a job over all tenants it is for, and reports; the last report has `end`.
    pub async fn run_job(
        &self,
        request: &JobRequest,
        shared: &Shared,
        progress: &mpsc::Sender<Progress>,
    ) {
        let mut reports = Reports::to(progress.clone());
        let asked = self
            .workers
            .iter()
            .filter(|worker| request.is_for_tenant(worker.step.memory.tenant()));
        let sets: Vec<_> = asked.map(|worker| worker.step.rules.get()).collect();
        let end = match check_rules_of_job(&sets, &request.rules) {
            Ok(()) => self.run_all(request, shared, &mut reports).await,
            Err(_) if sets.is_empty() => JobEnd::NoTenant,
            Err(failure) => JobEnd::Usage(failure.message.clone()),
        };
        reports.end(end).await;
    }

    async fn run_all(
        &self,
        request: &JobRequest,
        shared: &Shared,
        reports: &mut Reports,
    ) -> JobEnd {
        let mut end = None;
        for worker in &self.workers {
            let tenant = worker.step.memory.tenant();
            if !request.is_for_tenant(tenant) {
                continue;
            }
            let all = worker.step.rules.get();
            let rules = match (request.rules.as_slice(), request.kind) {
                ([], JobKind::Learn) => Arc::new(all.learning()).into(),
                ([], _) => worker.step.rules.clone(),
                (names, JobKind::Learn) => Arc::new(all.those_of(names).learning()).into(),
                (names, _) => Arc::new(all.those_of(names)).into(),
            };
            let step = StepConfig {
                live_since: DateTime::<Utc>::MAX_UTC,
                rules,
                ..worker.step.clone()
            };
            let worker = WorkerConfig {
                step,
                ..worker.clone()
            };
            let this = match job::run(request, &worker, shared, reports).await {
                Ok(()) => JobEnd::Done,
                Err(error) => {
                    tracing::error!(%tenant, %error, "the job stopped");
                    JobEnd::from(error)
                }
            };
            // The first end that is not a good one is what is told.
            if end.as_ref().is_none_or(|end| *end == JobEnd::Done) {
                end = Some(this);
            }
        }
        end.unwrap_or(JobEnd::NoTenant)
    }
}
