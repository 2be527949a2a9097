//! Tenants and the people in them: users, guests, administrators, their addresses and networks.

use rand::Rng;
use rand::rngs::StdRng;
use uuid::Uuid;

use super::options::TenantOptions;

/// Domains of partners and suppliers: outside, but nobody's private mail.
pub const PARTNER_DOMAINS: [&str; 4] = [
    "fabrikam.example",
    "litware.example",
    "northwind.example",
    "tailspin.example",
];

/// The partner of a tenant below whose domain all others are.
const SPARE_PARTNER_DOMAIN: &str = "partner.test";

/// Free mail providers.
pub const FREE_MAIL: [&str; 3] = ["gmail.com", "outlook.com", "proton.me"];

const GIVEN: [&str; 24] = [
    "Ada", "Ben", "Carla", "Dmitri", "Elif", "Femi", "Greta", "Hugo", "Ines", "Jonas", "Keiko",
    "Liam", "Maya", "Nils", "Olga", "Pavel", "Quinn", "Rosa", "Sven", "Tara", "Umar", "Vera",
    "Wim", "Yara",
];

const FAMILY: [&str; 16] = [
    "Arnold",
    "Brandt",
    "Costa",
    "Dubois",
    "Eriksen",
    "Fischer",
    "Garcia",
    "Hansen",
    "Ivanova",
    "Jensen",
    "Kowalski",
    "Lindqvist",
    "Moreau",
    "Novak",
    "Okafor",
    "Petrov",
];

/// One member of a tenant.
#[derive(Debug, Clone)]
pub struct Person {
    /// Display name.
    pub name: String,
    /// Local part of the address and alias of the mailbox.
    pub local: String,
    /// Address and user principal name.
    pub email: String,
    /// Directory object id.
    pub object_id: Uuid,
    /// PUID, as Exchange writes it in `UserKey`.
    pub puid: String,
    /// Google profile id.
    pub profile_id: String,
    /// The per-user constant Google writes as `uniqueQualifier` of logins: not unique.
    pub login_qualifier: String,
    /// Usual address of the network this person works from.
    pub ip: String,
}

/// One tenant with its people.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// Alias.
    pub alias: String,
    /// Mail domain.
    pub domain: String,
    /// Initial domain at Microsoft.
    pub onmicrosoft: String,
    /// Microsoft's tenant id; `None` where the tenant has no Office 365.
    pub tenant_id: Option<Uuid>,
    /// Google's customer id; `None` where the tenant has no Workspace.
    pub customer_id: Option<String>,
    /// The people; the first is the administrator.
    pub people: Vec<Person>,
}

impl Tenant {
    pub(crate) fn invent(options: &TenantOptions, rng: &mut StdRng) -> Self {
        let count = options.people.max(12);
        let office = rng.random_range(0..200);
        let people = (0..count)
            .map(|n| person(n, office, &options.domain, rng))
            .collect();
        let tenant_id = Uuid::from_u128(rng.random());
        let customer = rng.random_range(0x1000_0000_u32..0xffff_ffff);
        Self {
            alias: options.alias.clone(),
            domain: options.domain.clone(),
            onmicrosoft: format!("{}.onmicrosoft.com", options.alias),
            tenant_id: options.office365.then(|| guid_of(tenant_id)),
            customer_id: options.google.then(|| format!("C{customer:08x}")),
            people,
        }
    }

    /// The domains a configuration of this tenant must name as internal.
    pub fn internal_domains(&self) -> Vec<String> {
        vec![self.domain.clone(), self.onmicrosoft.clone()]
    }

    /// The partners: never the tenant itself, nor a domain below its own.
    pub(crate) fn partner_domains(&self) -> Vec<&'static str> {
        let below = format!(".{}", self.domain);
        let is_own = |domain: &&str| *domain == self.domain || domain.ends_with(&below);
        let mut partners = PARTNER_DOMAINS.to_vec();
        partners.retain(|domain| !is_own(domain));
        if partners.is_empty() {
            partners.push(SPARE_PARTNER_DOMAIN);
        }
        partners
    }

    /// The address of `who` at partner number `number`, counted round.
    pub(crate) fn at_partner(&self, who: &str, number: usize) -> String {
        let partners = self.partner_domains();
        let domain = partners.get(number % partners.len()).copied();
        format!("{who}@{}", domain.unwrap_or(SPARE_PARTNER_DOMAIN))
    }

    /// The administrator: reads the audit logs, acts for others.
    pub fn admin(&self) -> &Person {
        self.person(0)
    }

    /// A member by number, counted round.
    #[allow(clippy::indexing_slicing)] // The remainder is always inside; there are at least 12.
    pub fn person(&self, number: usize) -> &Person {
        &self.people[number % self.people.len()]
    }

    /// Any member but the administrator.
    pub(crate) fn anyone(&self, rng: &mut StdRng) -> &Person {
        self.person(rng.random_range(1..self.people.len()))
    }

    /// Tenant id as text; empty where there is no Office 365.
    pub(crate) fn tenant_id_text(&self) -> String {
        self.tenant_id.map(|id| id.to_string()).unwrap_or_default()
    }
}

fn person(number: usize, office: u8, domain: &str, rng: &mut StdRng) -> Person {
    let given = GIVEN.get(number % GIVEN.len()).copied().unwrap_or("Zoe");
    let family = FAMILY
        .get((number * 7 + number / 24) % FAMILY.len())
        .copied()
        .unwrap_or("Zieg");
    let mut local = format!("{}.{}", given.to_lowercase(), family.to_lowercase());
    if number >= GIVEN.len() {
        local = format!("{local}{number}");
    }
    Person {
        name: format!("{given} {family}"),
        email: format!("{local}@{domain}"),
        local,
        object_id: guid_of(Uuid::from_u128(rng.random())),
        puid: format!("10032{:011X}", rng.random_range(0..0xfff_ffff_ffff_u64)),
        profile_id: format!("1{:020}", rng.random_range(0..u64::MAX)),
        login_qualifier: rng
            .random_range(100_000_000_000_u64..900_000_000_000)
            .to_string(),
        ip: format!("203.0.{office}.{}", 10 + number % 200),
    }
}

/// The same bits as a well-formed random (version 4) GUID.
pub(crate) fn guid_of(bits: Uuid) -> Uuid {
    uuid::Builder::from_random_bytes(bits.into_bytes()).into_uuid()
}
