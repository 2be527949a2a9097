//! The rule set: all rules, compiled once and shared by all tenants.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use exfilwatch_model::{FieldSet, Finding, Product, Sight};
use uuid::Uuid;

use super::build::{Built, build};
use super::error::{Place, RuleError};
use super::index::Index;
use super::load::{SourceFile, embedded, folder};
use super::rule::Rule;
use super::rule_file::{RuleFile, STOCK_PREFIX, Sigma};
use super::schema::Pack;
use crate::engine::period;
use crate::native;
use crate::options::DetectorsOptions;
use exfilwatch_model::Pattern;

/// Most rules in a set.
const RULES_MAX: usize = 10_000;

/// A stock rule that cannot match anything here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The file.
    pub file: String,
    /// Title of the rule.
    pub title: String,
    /// Why, in one sentence.
    pub reason: String,
}

/// All rules, compiled.
#[derive(Debug)]
pub struct RuleSet {
    rules: Vec<Arc<Rule>>,
    skipped: Arc<[Skipped]>,
    index: Arc<Index>,
    places: HashMap<Uuid, usize>,
}

impl RuleSet {
    /// The rules that the options ask for: the built-in ones, those of `rules_dir` over them,
    /// less the disabled ones. Without detectors, none.
    pub fn load(options: &DetectorsOptions) -> Result<Self, RuleError> {
        Self::load_some(options, &[], |_| {})
    }

    /// The same to look at records: without the cases of the built-in rules, which are most of their text; and
    /// for who goes on to take [`RuleSet::only`] the rules of these names (none: all). Where all
    /// of them are names of stock rules, the built-in rules are not read, unless a correlation of the
    /// folder may count what they match.
    pub fn load_for(options: &DetectorsOptions, names: &[String]) -> Result<Self, RuleError> {
        Self::load_some(options, names, RuleFile::forget_cases)
    }

    fn load_some(
        options: &DetectorsOptions,
        names: &[String],
        with_built_in: fn(&mut RuleFile),
    ) -> Result<Self, RuleError> {
        if !options.enabled {
            return Self::from_files(&[], &[], &[]);
        }
        let overlay = match &options.rules_dir {
            Some(dir) => parse(&folder(dir)?)?,
            None => Vec::new(),
        };
        let is_stock = |name: &String| name.to_lowercase().starts_with(STOCK_PREFIX);
        let counts = |file: &RuleFile| {
            let mut documents = file.documents.iter();
            documents.any(|document| matches!(document.sigma, Sigma::Correlation(_)))
        };
        let only_stock = !names.is_empty() && names.iter().all(is_stock);
        let built_in = if only_stock && !overlay.iter().any(counts) {
            Vec::new()
        } else {
            embedded()
        };
        // One by one, so that what is not kept of a file is gone before the next.
        let built_in = built_in.into_iter().map(|file| {
            let mut parsed = RuleFile::parse(&file.name, &file.text)?;
            with_built_in(&mut parsed);
            Ok(parsed)
        });
        let built_in = built_in.collect::<Result<_, _>>()?;
        let all = Self::from_parsed(built_in, overlay, &options.disabled)?;
        Ok(all.with_packs(&options.packs))
    }

    /// The same rules; those of other packs than these say what they find as signals.
    #[must_use]
    pub fn with_packs(mut self, packs: &[Pack]) -> Self {
        for rule in &mut self.rules {
            let is_quiet = !packs.contains(&rule.pack);
            if is_quiet != rule.tuned.is_quiet {
                Arc::make_mut(rule).tuned.is_quiet = is_quiet;
            }
        }
        self
    }

    /// Rules of some files; a file of `overlay` that has the id of a rule in `files` replaces
    /// that file. `disabled` are detection names or patterns.
    pub fn from_files(
        files: &[SourceFile],
        overlay: &[SourceFile],
        disabled: &[String],
    ) -> Result<Self, RuleError> {
        Self::from_parsed(parse(files)?, parse(overlay)?, disabled)
    }

    fn from_parsed(
        mut parsed: Vec<RuleFile>,
        overlay: Vec<RuleFile>,
        disabled: &[String],
    ) -> Result<Self, RuleError> {
        let replacing: HashSet<Uuid> = ids(&overlay).collect();
        parsed.retain(|file| file.documents.iter().all(|d| !replacing.contains(&d.id)));
        parsed.extend(overlay);
        check_ids(&parsed)?;
        let Built { mut rules, skipped } = build(&parsed)?;
        let disabled: Vec<Pattern> = disabled.iter().map(|name| Pattern::new(name)).collect();
        rules.retain(|rule| {
            let name = rule.facts.detection.to_lowercase();
            !disabled.iter().any(|pattern| pattern.matches(&name))
        });
        let rules = rules.into_iter().map(Arc::new).collect();
        Ok(Self::of(rules, skipped.into()))
    }

    fn of(mut rules: Vec<Arc<Rule>>, skipped: Arc<[Skipped]>) -> Self {
        rules.sort_by(|a, b| {
            (&a.facts.detection, a.facts.id).cmp(&(&b.facts.detection, b.facts.id))
        });
        let wanted = rules
            .iter()
            .map(|rule| (rule.interests.clone(), rule.fields()));
        let natives = native::REGISTRY.iter();
        let natives = natives.map(|native| ((native.interests)(), None));
        let index = Index::new(wanted.chain(natives));
        let places = rules.iter().map(|rule| rule.facts.id).zip(0..).collect();
        Self {
            rules,
            skipped,
            index: Arc::new(index),
            places,
        }
    }

    /// The same set with other forms of its rules, or some of them.
    pub(super) fn with_rules(&self, rules: Vec<Arc<Rule>>) -> Self {
        if rules.len() != self.rules.len() {
            return Self::of(rules, Arc::clone(&self.skipped));
        }
        Self {
            rules,
            skipped: Arc::clone(&self.skipped),
            index: Arc::clone(&self.index),
            places: self.places.clone(),
        }
    }

    /// Only the rules that are named, by id, detection name or a pattern of names
    /// (`o365.mail.*`). The first name that no rule has is the error.
    pub fn only(&self, names: &[String]) -> Result<Self, String> {
        for name in names {
            if !self.rules.iter().any(|rule| is_named(rule, name)) {
                return Err(name.clone());
            }
        }
        Ok(self.those_of(names))
    }

    /// The same; a name that no rule has adds none.
    #[must_use]
    pub fn those_of(&self, names: &[String]) -> Self {
        let is_meant = |rule: &&Arc<Rule>| names.iter().any(|name| is_named(rule, name));
        let rules = self.rules.iter().filter(is_meant).cloned().collect();
        Self::of(rules, Arc::clone(&self.skipped))
    }

    /// Only the rules that measure events against the past.
    #[must_use]
    pub fn learning(&self) -> Self {
        let learns = |rule: &&Arc<Rule>| rule.learns_ms().is_some();
        let rules = self.rules.iter().filter(learns).cloned().collect();
        Self::of(rules, Arc::clone(&self.skipped))
    }

    /// The longest trailing window of a rule: what a past range is to be widened by, so that a
    /// burst which began before it is whole.
    pub fn longest_window(&self) -> TimeDelta {
        let longest = self
            .rules
            .iter()
            .map(|rule| period::longest_span_ms(rule))
            .max();
        TimeDelta::milliseconds(longest.unwrap_or(0))
    }

    /// The rules, by name.
    pub fn rules(&self) -> &[Arc<Rule>] {
        &self.rules
    }

    /// The rule at a place.
    pub(crate) fn at(&self, place: usize) -> Option<&Rule> {
        self.rules.get(place).map(|rule| &**rule)
    }

    /// Stock rules that were left out, and why.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// The rule of an id.
    pub fn rule(&self, id: Uuid) -> Option<&Rule> {
        self.places.get(&id).and_then(|place| self.at(*place))
    }

    /// Whether some detector wants a record with these operations. Cheap: asked for every record.
    pub fn wants(&self, product: Product, operations: &[Cow<'_, str>]) -> bool {
        self.index.wants(product, operations)
    }

    /// The same, less records whose events cannot have what the rules need, as far as a look at the text
    /// tells.
    pub fn wants_record(
        &self,
        product: Product,
        operations: &[Cow<'_, str>],
        text: &[u8],
        sight: &dyn Sight,
    ) -> bool {
        self.index.wants_record(product, operations, text, sight)
    }

    /// The fields that the rules look at in events of a record with these operations.
    pub fn fields(&self, product: Product, operations: &[Cow<'_, str>]) -> Arc<FieldSet> {
        self.index.fields(product, operations)
    }

    /// When a finding is over: events later than this no longer belong to it.
    pub fn expiry(&self, finding: &Finding) -> DateTime<Utc> {
        match self.rule(finding.rule.id) {
            Some(rule) => period::expiry(rule, finding),
            None => finding.last_time,
        }
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }
}

fn is_named(rule: &Rule, name: &str) -> bool {
    rule.facts.id.to_string() == name.to_lowercase()
        || Pattern::new(name).matches(&rule.facts.detection.to_lowercase())
}

fn parse(files: &[SourceFile]) -> Result<Vec<RuleFile>, RuleError> {
    let parse = |file: &SourceFile| RuleFile::parse(&file.name, &file.text);
    files.iter().map(parse).collect()
}

fn ids(files: &[RuleFile]) -> impl Iterator<Item = Uuid> {
    files
        .iter()
        .flat_map(|file| file.documents.iter().map(|document| document.id))
}

fn check_ids(files: &[RuleFile]) -> Result<(), RuleError> {
    let mut known: HashMap<Uuid, &str> = HashMap::new();
    for file in files {
        for document in &file.documents {
            let place = Place {
                file: &file.name,
                document: document.number,
            };
            if let Some(other) = known.insert(document.id, &file.name) {
                let problem = format!("{} is also the id of a rule in {other}", document.id);
                return Err(place.error("id", problem, "give each rule its own id"));
            }
            if known.len() > RULES_MAX {
                let problem = format!("there are more than {RULES_MAX} rules");
                return Err(place.error("", problem, "remove some"));
            }
        }
    }
    Ok(())
}
