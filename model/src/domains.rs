//! Inside and outside: whether an address belongs to the tenant, and what it is if not.
//!
//! Internal means equal to a configured domain or below it by a leading dot. The public suffix
//! list only groups what is outside: `evil.onmicrosoft.com` is not `contoso.onmicrosoft.com`.
//! Guests are outside whatever their name says.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::lists::Lists;
use crate::lookalike;

/// Domains at which anyone can open a mailbox, throwaway ones among them. Sorted.
const FREE_MAIL: &[&str] = &[
    "10minutemail.com",
    "126.com",
    "163.com",
    "abv.bg",
    "aol.com",
    "atomicmail.io",
    "att.net",
    "bk.ru",
    "bluewin.ch",
    "btinternet.com",
    "centrum.cz",
    "cock.li",
    "comcast.net",
    "cox.net",
    "daum.net",
    "duck.com",
    "email.cz",
    "emailondeck.com",
    "fastmail.com",
    "foxmail.com",
    "free.fr",
    "freenet.de",
    "gmail.com",
    "gmx.at",
    "gmx.ch",
    "gmx.com",
    "gmx.de",
    "gmx.es",
    "gmx.fr",
    "gmx.net",
    "gmx.us",
    "googlemail.com",
    "guerrillamail.com",
    "guerrillamail.info",
    "hanmail.net",
    "hey.com",
    "hotmail.be",
    "hotmail.ca",
    "hotmail.co.uk",
    "hotmail.com",
    "hotmail.de",
    "hotmail.es",
    "hotmail.fr",
    "hotmail.it",
    "hotmail.nl",
    "hotmail.se",
    "hushmail.com",
    "icloud.com",
    "inbox.com",
    "inbox.ru",
    "interia.pl",
    "laposte.net",
    "libero.it",
    "list.ru",
    "live.ca",
    "live.co.uk",
    "live.com",
    "live.com.au",
    "live.de",
    "live.fr",
    "live.it",
    "live.nl",
    "mac.com",
    "mail.com",
    "mail.ru",
    "mailbox.org",
    "maildrop.cc",
    "mailfence.com",
    "mailinator.com",
    "me.com",
    "msn.com",
    "naver.com",
    "o2.pl",
    "onet.pl",
    "orange.fr",
    "outlook.com",
    "outlook.com.br",
    "outlook.de",
    "outlook.es",
    "outlook.fr",
    "outlook.it",
    "outlook.jp",
    "pm.me",
    "posteo.de",
    "proton.me",
    "protonmail.ch",
    "protonmail.com",
    "qq.com",
    "rambler.ru",
    "rediffmail.com",
    "rocketmail.com",
    "sbcglobal.net",
    "seznam.cz",
    "sfr.fr",
    "sharklasers.com",
    "sina.com",
    "sohu.com",
    "startmail.com",
    "t-online.de",
    "temp-mail.org",
    "throwawaymail.com",
    "trashmail.com",
    "tuta.io",
    "tutamail.com",
    "tutanota.com",
    "tutanota.de",
    "ukr.net",
    "uol.com.br",
    "verizon.net",
    "virgilio.it",
    "wanadoo.fr",
    "web.de",
    "wp.pl",
    "ya.ru",
    "yahoo.ca",
    "yahoo.co.in",
    "yahoo.co.jp",
    "yahoo.co.uk",
    "yahoo.com",
    "yahoo.com.au",
    "yahoo.com.br",
    "yahoo.com.mx",
    "yahoo.de",
    "yahoo.es",
    "yahoo.fr",
    "yahoo.it",
    "yandex.by",
    "yandex.com",
    "yandex.kz",
    "yandex.ru",
    "yeah.net",
    "ymail.com",
    "yopmail.com",
    "zoho.com",
    "zohomail.com",
    "zohomail.eu",
];

/// What someone outside (or inside) is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartyClass {
    /// In a domain of the tenant.
    Internal,
    /// Invited from outside (`#EXT#`, `urn:spo:guest#`), not by a partner's address.
    Guest,
    /// In a domain that the tenant listed as partner, be it a guest or not.
    Partner,
    /// At a provider where anyone can have a mailbox.
    FreeMail,
    /// In some other organisation.
    ForeignTenant,
    /// A service account of a cloud project.
    ServiceAccount,
    /// Everybody who has the link.
    Anyone,
    /// Cannot be told from the text.
    Unknown,
}

impl PartyClass {
    /// The name used in fields and rules.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::Guest => "guest",
            Self::Partner => "partner",
            Self::FreeMail => "free_mail",
            Self::ForeignTenant => "foreign_tenant",
            Self::ServiceAccount => "service_account",
            Self::Anyone => "anyone",
            Self::Unknown => "unknown",
        }
    }

    /// Outside for certain: neither internal nor unknown.
    pub fn is_external(self) -> bool {
        !matches!(self, Self::Internal | Self::Unknown)
    }
}

/// Someone named in a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Party {
    /// The address in lower case, guests decoded (`bob@gmail.com`); the text itself when it is
    /// no address.
    pub address: String,
    /// Domain of the address.
    pub domain: Option<String>,
    /// Registrable domain, for grouping what is outside.
    pub registrable: Option<String>,
    /// What they are.
    pub class: PartyClass,
    /// Outside, under a name that looks like one of the tenant's.
    pub is_lookalike: bool,
    /// At a provider where anyone can have a mailbox, be it as a guest or not.
    pub is_free_mail: bool,
}

/// The domains of a tenant, and what it says of people, apps and others beside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Domains {
    internal: Vec<String>,
    partners: Vec<String>,
    lists: Arc<Lists>,
}

impl Domains {
    /// Domains in any case, with or without a leading `@` or dot.
    pub fn new<S: AsRef<str>>(internal: &[S], partners: &[S]) -> Self {
        let clean = |list: &[S]| list.iter().map(|d| clean_domain(d.as_ref())).collect();
        Self {
            internal: clean(internal),
            partners: clean(partners),
            lists: Arc::default(),
        }
    }

    /// The same, with the tenant's lists.
    #[must_use]
    pub fn with_lists(self, lists: Arc<Lists>) -> Self {
        Self { lists, ..self }
    }

    /// What the tenant says of people, apps and others.
    pub fn lists(&self) -> &Lists {
        &self.lists
    }

    /// Whether no internal domain is known.
    pub fn is_empty(&self) -> bool {
        self.internal.is_empty()
    }

    /// The internal domains.
    pub fn internal(&self) -> &[String] {
        &self.internal
    }

    /// These domains and one more, internal: used where none are configured and the record's own
    /// organisation is all that is known.
    pub fn with_internal(&self, domain: &str) -> Cow<'_, Self> {
        let domain = clean_domain(domain);
        if domain.is_empty() || self.internal.contains(&domain) {
            return Cow::Borrowed(self);
        }
        let mut more = self.clone();
        more.internal.push(domain);
        Cow::Owned(more)
    }

    /// Whether the domain is one of the tenant's or below one.
    pub fn is_internal_domain(&self, domain: &str) -> bool {
        is_below_any(&clean_domain(domain), &self.internal)
    }

    /// Who is meant by an address or login name of a record.
    pub fn party(&self, text: &str) -> Party {
        let text = text.trim();
        let (address, guest) = decode(text);
        let domain = domain_of(&address).map(str::to_owned);
        let class = if guest {
            self.class_of_guest(domain.as_deref())
        } else if is_anyone(text) {
            PartyClass::Anyone
        } else {
            domain
                .as_deref()
                .map_or(PartyClass::Unknown, |domain| self.class_of(domain))
        };
        let registrable = domain.as_deref().map(registrable);
        let is_listed_lookalike = class.is_external()
            && domain
                .as_deref()
                .is_some_and(|domain| is_below_any(domain, &self.lists.lookalikes));
        let is_free_mail = domain
            .as_deref()
            .is_some_and(|domain| self.is_free_mail(domain));
        let is_lookalike = is_listed_lookalike
            || match class {
                PartyClass::FreeMail => address
                    .split_once('@')
                    .is_some_and(|(local, _)| lookalike::local_resembles(local, &self.internal)),
                PartyClass::ForeignTenant => registrable
                    .as_deref()
                    .is_some_and(|domain| lookalike::domain_resembles(domain, &self.internal)),
                _ => false,
            };
        Party {
            address,
            domain,
            registrable,
            class,
            is_lookalike,
            is_free_mail,
        }
    }

    /// A guest is outside whatever the address says; one from a partner's domain is the partner's.
    pub fn class_of_guest(&self, domain: Option<&str>) -> PartyClass {
        match domain.map(|domain| self.class_of(domain)) {
            Some(PartyClass::Partner) => PartyClass::Partner,
            _ => PartyClass::Guest,
        }
    }

    /// Whether anyone can have a mailbox at this clean domain, by the built-in list or the tenant's.
    fn is_free_mail(&self, domain: &str) -> bool {
        FREE_MAIL.binary_search(&domain).is_ok() || self.lists.free_mail.contains(domain)
    }

    fn class_of(&self, domain: &str) -> PartyClass {
        if is_below_any(domain, &self.internal) {
            PartyClass::Internal
        } else if is_below_any(domain, &self.partners) || is_below_any(domain, &self.lists.partners)
        {
            PartyClass::Partner
        } else if domain.ends_with(".gserviceaccount.com") {
            PartyClass::ServiceAccount
        } else if self.is_free_mail(domain) {
            PartyClass::FreeMail
        } else {
            PartyClass::ForeignTenant
        }
    }
}

/// A domain in lower case, without a leading `@` or dot.
pub fn clean_domain(domain: &str) -> String {
    domain
        .trim()
        .trim_start_matches(['@', '.'])
        .trim_end_matches('.')
        .to_lowercase()
}

/// Whether a domain is one of these or below one.
pub(crate) fn is_below_any(domain: &str, domains: &[String]) -> bool {
    domains.iter().any(|own| {
        domain == own
            || domain
                .strip_suffix(own.as_str())
                .is_some_and(|rest| rest.ends_with('.'))
    })
}

/// The domain of an address: what follows the last `@`, when it looks like one.
fn domain_of(address: &str) -> Option<&str> {
    let (local, domain) = address.rsplit_once('@')?;
    let plausible = !local.is_empty()
        && domain.contains('.')
        && !domain.starts_with('.')
        && !domain.contains(char::is_whitespace);
    plausible.then(|| domain.trim_end_matches('.'))
}

/// Registrable domain by the public suffix list, for grouping; the domain itself where the list
/// knows none.
pub fn registrable(domain: &str) -> String {
    psl::domain_str(domain).unwrap_or(domain).to_owned()
}

/// Whether anyone can have a mailbox at this domain.
pub fn is_free_mail(domain: &str) -> bool {
    FREE_MAIL
        .binary_search(&clean_domain(domain).as_str())
        .is_ok()
}

/// An address or login name of a record in lower case, without its wrapping; guests decoded.
pub fn address(text: &str) -> String {
    decode(text.trim()).0
}

/// Takes the wrapping off a login name. Gives the address in lower case, and whether it is a
/// guest's. Forms seen in the Unified Audit Log: `bob_gmail.com#EXT#@contoso.onmicrosoft.com` (the
/// last `_` stands for the @), `urn:spo:guest#bob@gmail.com`, `i:0#.f|membership|bob@contoso.com`,
/// `smtp:bob@contoso.com`.
fn decode(text: &str) -> (String, bool) {
    let lower = text.to_lowercase();
    let inner = lower.rsplit('|').next().unwrap_or(&lower);
    // Guests are marked so, in both forms.
    if inner.contains('#') {
        if let Some((_, guest)) = inner.split_once("urn:spo:guest#") {
            return (guest.to_owned(), true);
        }
        if let Some((name, _)) = inner.split_once("#ext#") {
            let address = match name.rsplit_once('_') {
                Some((local, domain)) => format!("{local}@{domain}"),
                None => name.to_owned(),
            };
            return (address, true);
        }
    }
    let plain = inner.strip_prefix("smtp:").unwrap_or(inner);
    let plain = plain.trim_matches(|c| matches!(c, '<' | '>' | '"' | '\'' | ' '));
    if plain.len() == lower.len() {
        return (lower, false);
    }
    (plain.to_owned(), false)
}

fn is_anyone(text: &str) -> bool {
    const LINK: &str = "urn:spo:anon#";
    let start = text.get(..LINK.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(LINK))
        || text.eq_ignore_ascii_case("anonymous")
        || text.eq_ignore_ascii_case("anyone")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_of_an_address_is_put_on_the_right_side() {
        use PartyClass::{
            Anyone, ForeignTenant, FreeMail, Guest, Internal, Partner, ServiceAccount, Unknown,
        };
        let domains = Domains::new(
            &["Contoso.example", "contoso.onmicrosoft.com"],
            &["partner.example"],
        );
        for (text, class, address) in [
            ("Alice@CONTOSO.example", Internal, "alice@contoso.example"),
            ("a@sub.contoso.example", Internal, "a@sub.contoso.example"),
            (
                "a@notcontoso.example",
                ForeignTenant,
                "a@notcontoso.example",
            ),
            (
                "a@contoso.example.evil.net",
                ForeignTenant,
                "a@contoso.example.evil.net",
            ),
            (
                "a@evil.onmicrosoft.com",
                ForeignTenant,
                "a@evil.onmicrosoft.com",
            ),
            ("smtp:x@gmail.com", FreeMail, "x@gmail.com"),
            ("x@eu.partner.example", Partner, "x@eu.partner.example"),
            (
                "bob_gmail.com#EXT#@contoso.onmicrosoft.com",
                Guest,
                "bob@gmail.com",
            ),
            (
                "bob_partner.example#EXT#@contoso.onmicrosoft.com",
                Partner,
                "bob@partner.example",
            ),
            (
                "i:0#.f|membership|urn:spo:guest#bob@contoso.example",
                Guest,
                "bob@contoso.example",
            ),
            (
                "b_o_b_gmail.com#EXT#@contoso.onmicrosoft.com",
                Guest,
                "b_o_b@gmail.com",
            ),
            (
                "i:0#.f|membership|alice@contoso.example",
                Internal,
                "alice@contoso.example",
            ),
            (
                "i:0#.f|membership|urn:spo:guest#bob@gmail.com",
                Guest,
                "bob@gmail.com",
            ),
            ("urn:spo:anon#a1b2", Anyone, "urn:spo:anon#a1b2"),
            (
                "robot@p1.iam.gserviceaccount.com",
                ServiceAccount,
                "robot@p1.iam.gserviceaccount.com",
            ),
            (
                "NT AUTHORITY\\SYSTEM (w9wp)",
                Unknown,
                "nt authority\\system (w9wp)",
            ),
            ("", Unknown, ""),
            ("app@sharepoint", Unknown, "app@sharepoint"),
        ] {
            let party = domains.party(text);
            assert_eq!(
                (party.class, party.address.as_str()),
                (class, address),
                "{text}"
            );
        }
    }

    #[test]
    fn the_list_of_free_mail_is_sorted_for_the_search_in_it() {
        assert!(FREE_MAIL.is_sorted());
    }

    #[test]
    fn free_mail_is_told_from_what_looks_like_it() {
        assert!(is_free_mail("GMAIL.com"));
        assert!(!is_free_mail("notgmail.com"));
        assert!(!is_free_mail("mail.gmail.com.evil.example"));
    }

    #[test]
    fn what_is_outside_is_grouped_by_registrable_domain() {
        let party = Domains::default().party("x@mail.evil.co.uk");
        assert_eq!(party.registrable.as_deref(), Some("evil.co.uk"));
    }
}
