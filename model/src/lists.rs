//! What an organisation says of its people, its apps and those it deals with, and which facts of an
//! event follow from it.
//!
//! An input of reading a record, like the domains: the same record read with the same lists gives the
//! same event. Where a list says nothing the event bears no field, so that nothing follows from
//! silence.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::Arc;

use chrono::{DateTime, Days, NaiveDate, Utc};
use serde::Deserialize;

use crate::domains::is_below_any;
use crate::event::{Event, Value, field};
use crate::namesake;
use crate::network::Network;

/// Days before somebody leaves from which on he counts as a leaver, where nothing else is said.
pub const LEAVER_DAYS: u32 = 30;

/// A person (or account) as the people list has it. Addresses and groups are in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Person {
    /// The main address.
    pub address: String,
    /// Further addresses and login names.
    pub aliases: Vec<String>,
    /// Of whom more is at stake.
    pub vip: bool,
    /// The last day with the organisation.
    pub leaves: Option<NaiveDate>,
    /// Address of the manager.
    pub manager: Option<String>,
    /// No person but a program's account.
    pub service_account: bool,
    /// Names of groups or departments.
    pub groups: Vec<String>,
}

impl Person {
    /// Whether at an instant the last day is past.
    fn has_left(&self, at: DateTime<Utc>) -> bool {
        self.leaves.is_some_and(|last| at.date_naive() > last)
    }

    /// Whether at an instant the last day is at most so many days ahead, or past.
    fn is_leaver(&self, at: DateTime<Utc>, days: u32) -> bool {
        let ahead = at.date_naive().checked_add_days(Days::new(days.into()));
        self.leaves
            .is_some_and(|last| ahead.is_none_or(|ahead| ahead >= last))
    }
}

/// The class of partners, and that by which what goes to them is allowed.
const PARTNER: &str = "partner";

/// Whom and what the organisation has allowed: findings about nothing else are a step less severe.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Domains, each with all below it.
    pub domains: Vec<String>,
    /// Addresses, of those who act and of those to whom something goes.
    pub people: BTreeSet<String>,
    /// Groups of the people list: what their members do.
    pub groups: BTreeSet<String>,
    /// Ids of apps.
    pub apps: BTreeSet<String>,
    /// Networks that something is done from.
    pub networks: Vec<Network>,
}

/// What is known of a network address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// Number of the autonomous system.
    pub asn: Option<i64>,
    /// Country, ISO 3166-1 alpha-2.
    pub region: Option<String>,
}

/// Knows where addresses are.
pub trait Places: Debug + Send + Sync {
    /// What is known of an address. The same address gives the same answer as long as it lives.
    fn place(&self, address: IpAddr) -> Place;
}

/// All lists of one tenant.
#[derive(Debug, Clone, Default)]
pub struct Lists {
    people: BTreeMap<String, Arc<Person>>,
    /// By id in lower case, whether it is approved. Without any, nothing is said of apps.
    apps: BTreeMap<String, bool>,
    /// Further domains of partners.
    pub partners: Vec<String>,
    /// Further domains at which anyone can have a mailbox.
    pub free_mail: BTreeSet<String>,
    /// Domains known to imitate ours.
    pub lookalikes: Vec<String>,
    /// Days before somebody leaves from which on he counts as a leaver.
    pub leaver_days: u32,
    /// See [`Allowed`].
    pub allowed: Allowed,
    /// Where addresses are that the record itself says nothing of.
    pub places: Option<Arc<dyn Places>>,
}

impl PartialEq for Lists {
    fn eq(&self, other: &Self) -> bool {
        let places = match (&self.places, &other.places) {
            (Some(one), Some(another)) => Arc::ptr_eq(one, another),
            (one, another) => one.is_none() && another.is_none(),
        };
        places
            && self.people == other.people
            && self.apps == other.apps
            && self.partners == other.partners
            && self.free_mail == other.free_mail
            && self.lookalikes == other.lookalikes
            && self.leaver_days == other.leaver_days
            && self.allowed == other.allowed
    }
}

impl Eq for Lists {}

impl Lists {
    /// Lists of people and apps (id, and whether it is approved).
    pub fn new(people: Vec<Person>, apps: BTreeMap<String, bool>) -> Self {
        let mut by_address = BTreeMap::new();
        for person in people.into_iter().map(Arc::new) {
            for alias in &person.aliases {
                // A main address wins over another's alias.
                let known = by_address.entry(alias.to_lowercase());
                known.or_insert_with(|| Arc::clone(&person));
            }
            by_address.insert(person.address.to_lowercase(), person);
        }
        Self {
            people: by_address,
            apps: apps
                .into_iter()
                .map(|(id, is)| (id.to_lowercase(), is))
                .collect(),
            leaver_days: LEAVER_DAYS,
            ..Self::default()
        }
    }

    /// Who has an address.
    pub fn person(&self, address: &str) -> Option<&Person> {
        self.people.get(address).map(|person| &**person)
    }

    /// How many addresses the people list knows.
    pub fn addresses(&self) -> usize {
        self.people.len()
    }

    /// Whether [`Lists::describe`] may set a field. Of what it has nothing to do with: yes.
    pub fn may_say(&self, name: &str) -> bool {
        match name {
            field::ACTOR_IS_VIP
            | field::ACTOR_IS_SERVICE_ACCOUNT
            | field::ACTOR_IS_LEAVER
            | field::ACTOR_HAS_LEFT
            | field::ACTOR_GROUPS
            | field::MAILBOX_IS_VIP
            | field::MAILBOX_IS_LEAVER
            | field::TARGET_IS_VIP
            | field::TARGET_IS_MANAGER => !self.people.is_empty(),
            field::SOURCE_ASN | field::SOURCE_REGION => self.places.is_some(),
            field::APP_IS_APPROVED => !self.apps.is_empty(),
            _ => true,
        }
    }

    /// Puts on an event what follows from the lists.
    pub fn describe(&self, event: &mut Event) {
        self.describe_place(event);
        describe_namesake(event);
        self.describe_people(event);
        if !self.apps.is_empty()
            && let Some(app) = event.text(field::APP_ID)
        {
            let approved = self.apps.get(&app.to_lowercase()).copied();
            event.set(field::APP_IS_APPROVED, approved.unwrap_or(false));
        }
        let allowed = self.allowed_by(event);
        if !allowed.is_empty() {
            event.set(field::IS_ALLOWED, true);
            let names = allowed.into_iter().map(Value::from).collect();
            event.set(field::ALLOWED_BY, Value::List(names));
        }
        self.describe_identity(event);
    }

    /// Who acts under an alias is the person of the main address, for all that is counted and told.
    /// What the list says is all that is known of aliases: one learned from records would make what
    /// came before it somebody else's, depending on the order of arrival.
    fn describe_identity(&self, event: &mut Event) {
        if self.people.is_empty() {
            return;
        }
        let Some(account) = event.text(field::ACTOR).map(|text| text.to_lowercase()) else {
            return;
        };
        let main = self.person(&account).map(|one| one.address.to_lowercase());
        if let Some(main) = main.filter(|main| !main.is_empty() && *main != account) {
            event.set(field::ACTOR, main);
            event.set(field::ACTOR_ACCOUNT, account);
        }
    }

    fn describe_people(&self, event: &mut Event) {
        if self.people.is_empty() {
            return;
        }
        let (at, days) = (event.time, self.leaver_days);
        let person = |event: &Event, name: &str| self.people.get(&*event.text(name)?).cloned();
        let actor = person(event, field::ACTOR);
        let owner = person(event, field::MAILBOX);
        let target = person(event, field::TARGET);
        if let Some(actor) = &actor {
            for (name, is) in [
                (field::ACTOR_IS_VIP, actor.vip),
                (field::ACTOR_IS_SERVICE_ACCOUNT, actor.service_account),
                (field::ACTOR_IS_LEAVER, actor.is_leaver(at, days)),
                (field::ACTOR_HAS_LEFT, actor.has_left(at)),
            ] {
                set_true(event, name, is);
            }
            if !actor.groups.is_empty() {
                let groups = actor.groups.iter().cloned().map(Value::from);
                event.set(field::ACTOR_GROUPS, Value::List(groups.collect()));
            }
        }
        if let Some(owner) = &owner {
            set_true(event, field::MAILBOX_IS_VIP, owner.vip);
            let leaves = owner.is_leaver(at, days);
            set_true(event, field::MAILBOX_IS_LEAVER, leaves);
        }
        set_true(
            event,
            field::TARGET_IS_VIP,
            target.is_some_and(|person| person.vip),
        );
        // Whose manager counts is whose mail or documents go, where that is told.
        let whose = owner.or(actor);
        let manager = whose.as_ref().and_then(|person| person.manager.as_deref());
        let goes_to = event
            .text(field::FORWARD_TO)
            .or_else(|| event.text(field::TARGET));
        let is_manager = manager.is_some() && manager == goes_to.as_deref();
        set_true(event, field::TARGET_IS_MANAGER, is_manager);
    }

    fn describe_place(&self, event: &mut Event) {
        let Some(places) = &self.places else { return };
        let address = event.text(field::SOURCE_IP);
        let Some(address) = address.and_then(|text| text.parse::<IpAddr>().ok()) else {
            return;
        };
        let place = places.place(address.to_canonical());
        if event.get(field::SOURCE_ASN).is_none() {
            event.set_some(field::SOURCE_ASN, place.asn);
        }
        if event.get(field::SOURCE_REGION).is_none() {
            event.set_some(field::SOURCE_REGION, place.region);
        }
    }

    /// Whether somebody is allowed, under whichever address.
    fn is_allowed(&self, address: &str) -> bool {
        let people = &self.allowed.people;
        let is_named = |name: &String| people.contains(&name.to_lowercase());
        people.contains(address)
            || self.person(address).is_some_and(|person| {
                is_named(&person.address) || person.aliases.iter().any(is_named)
            })
    }

    /// By which of the allow-lists, in a fixed order.
    fn allowed_by(&self, event: &Event) -> Vec<&'static str> {
        let allowed = &self.allowed;
        let is_partner = event.text(field::EXTERNAL_CLASS).as_deref() == Some(PARTNER);
        if *allowed == Allowed::default() {
            return is_partner.then_some(PARTNER).into_iter().collect();
        }
        let text = |name| event.text(name);
        let domain = [field::FORWARD_TO, field::TARGET].into_iter().any(|name| {
            let text = text(name);
            let domain = text.as_deref().and_then(|text| text.rsplit_once('@'));
            domain.is_some_and(|(_, domain)| is_below_any(domain, &allowed.domains))
        }) || text(field::EXTERNAL_DOMAIN)
            .is_some_and(|domain| is_below_any(&domain, &allowed.domains));
        let person = [field::ACTOR, field::FORWARD_TO, field::TARGET]
            .into_iter()
            .any(|name| text(name).is_some_and(|text| self.is_allowed(&text)));
        let actor = text(field::ACTOR);
        let group = actor
            .and_then(|actor| self.person(&actor))
            .is_some_and(|person| person.groups.iter().any(|g| allowed.groups.contains(g)));
        let app = text(field::APP_ID).is_some_and(|id| allowed.apps.contains(&id.to_lowercase()));
        let network = text(field::SOURCE_IP)
            .and_then(|text| text.parse::<IpAddr>().ok())
            .is_some_and(|ip| allowed.networks.iter().any(|network| network.holds(ip)));
        [
            (PARTNER, is_partner),
            ("domain", domain),
            ("person", person),
            ("group", group),
            ("app", app),
            ("address", network),
        ]
        .into_iter()
        .filter_map(|(name, is)| is.then_some(name))
        .collect()
    }
}

/// Whether what goes out goes to a free mailbox with the actor's name. Of a guest's mailbox as well.
fn describe_namesake(event: &mut Event) {
    let is_free = event.get(field::EXTERNAL_IS_FREE_MAIL) == Some(&Value::Bool(true));
    if !is_free || event.get(field::ACTOR_IS_INTERNAL) != Some(&Value::Bool(true)) {
        return;
    }
    let actor = event.text(field::ACTOR);
    let goes_to = event
        .text(field::FORWARD_TO)
        .or_else(|| event.text(field::TARGET));
    let locals = (
        actor.as_deref().and_then(local),
        goes_to.as_deref().and_then(local),
    );
    let is = matches!(locals, (Some(actor), Some(other)) if namesake::are(actor, other));
    set_true(event, field::EXTERNAL_RESEMBLES_ACTOR, is);
}

/// What stands before the `@`.
fn local(address: &str) -> Option<&str> {
    Some(address.rsplit_once('@')?.0)
}

/// A fact is said where it holds, and nothing is said where it does not.
fn set_true(event: &mut Event, name: &'static str, is: bool) {
    if is {
        event.set(name, true);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::names::Product;

    fn event(time: &str, fields: &[(&'static str, &str)]) -> Event {
        let time = time.parse().unwrap();
        let mut event = Event::new(Product::M365, "id".into(), 0, time, Bytes::new());
        for (name, value) in fields {
            event.set(*name, *value);
        }
        event
    }

    fn lists() -> Lists {
        let alice = Person {
            address: "alice@corp.example".into(),
            aliases: vec!["a.smith@corp.example".into()],
            vip: true,
            leaves: "2026-06-30".parse().ok(),
            manager: Some("boss@corp.example".into()),
            groups: vec!["finance".into()],
            ..Person::default()
        };
        let robot = Person {
            address: "robot@corp.example".into(),
            service_account: true,
            ..Person::default()
        };
        Lists::new(
            vec![alice, robot],
            BTreeMap::from([("AB-1".to_owned(), true), ("ab-2".to_owned(), false)]),
        )
    }

    #[test]
    fn a_free_mailbox_with_the_actors_name_is_told_and_no_other() {
        for (free, internal, target, expected) in [
            (true, true, "alice.smith85@gmail.com", true),
            (true, true, "bob@gmail.com", false),
            (false, true, "alice.smith@customer.example", false),
            (true, false, "alice.smith85@gmail.com", false),
        ] {
            let mut event = event(
                "2026-05-04T08:00:00Z",
                &[
                    (field::ACTOR, "a.smith@corp.example"),
                    (field::TARGET, target),
                ],
            );
            event.set(field::EXTERNAL_IS_FREE_MAIL, free);
            event.set(field::ACTOR_IS_INTERNAL, internal);
            Lists::default().describe(&mut event);
            assert_eq!(
                event.is(field::EXTERNAL_RESEMBLES_ACTOR),
                expected,
                "{target}"
            );
            assert_eq!(
                event.get(field::EXTERNAL_RESEMBLES_ACTOR).is_some(),
                expected
            );
        }
    }

    #[test]
    fn a_leaver_is_one_from_some_days_before_the_last_day_and_has_left_from_the_day_after() {
        for (time, leaver, left) in [
            ("2026-05-30T23:59:59Z", false, false),
            ("2026-05-31T00:00:00Z", true, false),
            ("2026-06-30T23:59:59Z", true, false),
            ("2026-07-01T00:00:00Z", true, true),
            ("2027-07-01T00:00:00Z", true, true),
        ] {
            let mut event = event(time, &[(field::ACTOR, "a.smith@corp.example")]);
            lists().describe(&mut event);
            assert_eq!(event.is(field::ACTOR_IS_LEAVER), leaver, "{time}");
            assert_eq!(event.is(field::ACTOR_HAS_LEFT), left, "{time}");
            assert!(event.is(field::ACTOR_IS_VIP), "by an alias");
        }
    }

    #[test]
    fn who_acts_under_an_alias_is_the_person_of_the_main_address() {
        for (account, actor, kept) in [
            ("a.smith@corp.example", "alice@corp.example", true),
            ("A.Smith@Corp.example", "alice@corp.example", true),
            ("alice@corp.example", "alice@corp.example", false),
            ("robot@corp.example", "robot@corp.example", false),
            ("eve@else.example", "eve@else.example", false),
        ] {
            let mut event = event("2026-01-01T00:00:00Z", &[(field::ACTOR, account)]);
            lists().describe(&mut event);
            assert_eq!(
                event.text(field::ACTOR).as_deref(),
                Some(actor),
                "{account}"
            );
            let told = event.text(field::ACTOR_ACCOUNT);
            let expected = account.to_lowercase();
            assert_eq!(told.as_deref(), kept.then_some(&*expected), "{account}");
        }
        let mut event = event(
            "2026-01-01T00:00:00Z",
            &[(field::ACTOR, "a.smith@corp.example")],
        );
        Lists::default().describe(&mut event);
        assert_eq!(
            event.text(field::ACTOR).as_deref(),
            Some("a.smith@corp.example")
        );
        assert!(
            event.get(field::ACTOR_ACCOUNT).is_none(),
            "without a list nothing changes"
        );
    }

    #[test]
    fn who_is_allowed_is_so_under_every_address() {
        for named in ["alice@corp.example", "a.smith@corp.example"] {
            let mut lists = lists();
            lists.allowed.people = BTreeSet::from([named.to_owned()]);
            for actor in ["alice@corp.example", "a.smith@corp.example"] {
                let mut event = event("2026-01-01T00:00:00Z", &[(field::ACTOR, actor)]);
                lists.describe(&mut event);
                assert!(event.is(field::IS_ALLOWED), "{named}: {actor}");
            }
        }
    }

    #[test]
    fn the_manager_is_the_one_of_him_whose_mail_goes() {
        let at = "2026-01-01T00:00:00Z";
        for (mailbox, to, expected) in [
            ("alice@corp.example", "boss@corp.example", true),
            ("alice@corp.example", "eve@else.example", false),
            ("robot@corp.example", "boss@corp.example", false),
        ] {
            let fields = [
                (field::ACTOR, "admin@corp.example"),
                (field::MAILBOX, mailbox),
                (field::FORWARD_TO, to),
            ];
            let mut event = event(at, &fields);
            lists().describe(&mut event);
            assert_eq!(event.is(field::TARGET_IS_MANAGER), expected, "{mailbox}");
        }
    }

    #[test]
    fn an_app_is_approved_or_not_and_without_a_list_nothing_is_said() {
        let at = "2026-01-01T00:00:00Z";
        for (id, approved) in [("ab-1", true), ("AB-2", false), ("other", false)] {
            let mut event = event(at, &[(field::APP_ID, id)]);
            lists().describe(&mut event);
            let said = event.get(field::APP_IS_APPROVED).cloned();
            assert_eq!(said, Some(Value::Bool(approved)), "{id}");
        }
        let mut event = event(at, &[(field::APP_ID, "ab-1")]);
        Lists::default().describe(&mut event);
        assert!(event.get(field::APP_IS_APPROVED).is_none());
    }

    #[test]
    fn what_is_allowed_says_by_which_list() {
        let mut lists = lists();
        lists.allowed = Allowed {
            domains: vec!["friend.example".into()],
            people: BTreeSet::from(["robot@corp.example".to_owned()]),
            groups: BTreeSet::from(["finance".to_owned()]),
            apps: BTreeSet::from(["ab-2".to_owned()]),
            networks: vec!["10.0.0.0/8".parse().unwrap()],
        };
        for (name, value, by) in [
            (field::TARGET, "x@eu.friend.example", Some("domain")),
            (field::TARGET, "x@notfriend.example", None),
            (field::ACTOR, "robot@corp.example", Some("person")),
            (field::ACTOR, "alice@corp.example", Some("group")),
            (field::APP_ID, "AB-2", Some("app")),
            (field::SOURCE_IP, "::ffff:10.1.2.3", Some("address")),
            (field::SOURCE_IP, "11.1.2.3", None),
        ] {
            let mut event = event("2026-01-01T00:00:00Z", &[(name, value)]);
            lists.describe(&mut event);
            assert_eq!(event.text(field::ALLOWED_BY).as_deref(), by, "{value}");
            assert_eq!(event.is(field::IS_ALLOWED), by.is_some(), "{value}");
        }
    }
}
