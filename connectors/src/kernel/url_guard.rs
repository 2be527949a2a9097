//! Where a token may go: one origin, fixed by the configuration, and no other.
//!
//! URLs that a server gives are never followed as given. Their path and query are taken, byte for
//! byte, and asked for on our origin, and only where they lie below the tenant's own feed.

use url::{Host, Url};

/// Longest URL taken from a server, in bytes: it must fit into a work item.
pub const URL_BYTES_MAX: usize = 2_000;

/// Why a URL is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub &'static str);

/// Scheme, host and port, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(Url);

impl Origin {
    /// https anywhere, http on this machine only; no path, query, user name or password.
    pub fn new(url: &Url) -> Result<Self, Refused> {
        let plain = matches!(url.path(), "" | "/")
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        if !plain {
            return Err(Refused("give scheme, host and port only"));
        }
        match url.scheme() {
            "https" => {}
            "http" if on_loopback(url) => {}
            "http" => return Err(Refused("http is for this machine only: use https")),
            _ => return Err(Refused("use https")),
        }
        Ok(Self(url.clone()))
    }

    /// Whether it is this machine.
    pub fn is_loopback(&self) -> bool {
        on_loopback(&self.0)
    }

    /// Without a slash at the end: `https://manage.office.com`.
    pub fn as_str(&self) -> &str {
        self.0.as_str().trim_end_matches('/')
    }

    /// The URL of a path (and query) on this origin.
    pub fn at(&self, path_and_query: &str) -> String {
        format!("{}{path_and_query}", self.as_str())
    }

    fn is_host(&self, url: &Url) -> bool {
        url.scheme() == self.0.scheme()
            && url.host() == self.0.host()
            && url.port_or_known_default() == self.0.port_or_known_default()
    }
}

/// Whether the host of a URL is this machine.
pub fn on_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// Takes path and query out of URLs that a server gave.
#[derive(Debug, Clone)]
pub struct UrlGuard {
    origin: Origin,
    /// Hosts of the vendor, which a server behind an override may still write into its URLs.
    vendor: Vec<Origin>,
    /// Path prefixes, lower case, each ending in a slash.
    prefixes: Vec<String>,
    length_max: usize,
}

impl UrlGuard {
    /// `prefixes` end in a slash; they are compared without regard to case (GUIDs differ in it).
    pub fn new(origin: Origin, vendor: Vec<Origin>, prefixes: &[String]) -> Self {
        Self {
            origin,
            vendor,
            prefixes: prefixes.iter().map(|p| p.to_ascii_lowercase()).collect(),
            length_max: URL_BYTES_MAX,
        }
    }

    /// Takes longer URLs than [`URL_BYTES_MAX`]: for links that are followed and never stored.
    #[must_use]
    pub fn up_to(mut self, length_max: usize) -> Self {
        self.length_max = length_max;
        self
    }

    /// The one origin.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Path and query of a whole URL that a server gave.
    pub fn take<'a>(&self, given: &'a str) -> Result<&'a str, Refused> {
        check_characters(given, self.length_max)?;
        let rest = given
            .strip_prefix("https://")
            .or_else(|| given.strip_prefix("http://"))
            .ok_or(Refused("not an https URL"))?;
        let url = Url::parse(given).map_err(|_| Refused("not a URL"))?;
        if !url.username().is_empty() || url.password().is_some() || authority(rest).contains('@') {
            return Err(Refused("user name or password in the URL"));
        }
        if !self.origin.is_host(&url) && !self.vendor.iter().any(|known| known.is_host(&url)) {
            return Err(Refused("another scheme, host or port than the cloud's"));
        }
        let (_, path_and_query) = rest.split_at(authority(rest).len());
        self.check(path_and_query)?;
        Ok(path_and_query)
    }

    /// Checks a path and query, as [`UrlGuard::take`] gave it and the store kept it.
    pub fn check(&self, path_and_query: &str) -> Result<(), Refused> {
        check_characters(path_and_query, self.length_max)?;
        let path = path_and_query
            .split_once('?')
            .map_or(path_and_query, |(path, _)| path);
        let lower = path.to_ascii_lowercase();
        let Some(rest) = self
            .prefixes
            .iter()
            .find_map(|p| lower.strip_prefix(p.as_str()))
        else {
            return Err(Refused("not below what may be asked for"));
        };
        if ["%2f", "%5c", "%00", "%0a", "%0d", "%25"]
            .iter()
            .any(|bad| rest.contains(bad))
        {
            return Err(Refused(
                "an encoded slash, percent or control character in the path",
            ));
        }
        if rest
            .replace("%2e", ".")
            .split('/')
            .any(|part| matches!(part, "." | ".." | ""))
        {
            return Err(Refused("an empty or dotted segment in the path"));
        }
        // What is asked for must be what was checked: a parser must find nothing to put right.
        let parsed =
            Url::parse(&self.origin.at(path_and_query)).map_err(|_| Refused("not a URL"))?;
        let same = parsed.as_str().strip_prefix(self.origin.as_str()) == Some(path_and_query);
        if same && self.origin.is_host(&parsed) {
            Ok(())
        } else {
            Err(Refused("a URL that means something else than it says"))
        }
    }
}

fn authority(rest: &str) -> &str {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    rest.split_at(end).0
}

fn check_characters(text: &str, length_max: usize) -> Result<(), Refused> {
    if text.len() > length_max {
        return Err(Refused("the URL is too long"));
    }
    let odd = |b: u8| {
        !b.is_ascii_graphic() || matches!(b, b'\\' | b'#' | b'"' | b'<' | b'>' | b'`' | b'^')
    };
    if text.bytes().any(odd) {
        return Err(Refused("a character in the URL that does not belong there"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: &str = "0b3f9ef4-6d0a-4d5b-9d1e-2f1c0a9b8c7d";
    const OTHER: &str = "11111111-6d0a-4d5b-9d1e-2f1c0a9b8c7d";

    fn origin(text: &str) -> Origin {
        Origin::new(&text.parse().unwrap()).unwrap()
    }

    fn guard(own: &str) -> UrlGuard {
        let prefixes = ["v1.0", "v1"].map(|v| format!("/api/{v}/{TENANT}/activity/feed/"));
        let vendor = vec![origin("https://manage.office.com")];
        UrlGuard::new(origin(own), vendor, &prefixes)
    }

    #[test]
    fn path_and_query_are_taken_byte_for_byte() {
        let cloud = guard("https://manage.office.com");
        let simulator = guard("http://127.0.0.1:8123");
        let upper = TENANT.to_ascii_uppercase();
        for path in [
            format!("/api/v1.0/{TENANT}/activity/feed/audit/2026$x$audit_exchange$emea0036"),
            format!("/api/v1.0/{TENANT}/activity/feed/audit/2026%24x%24audit?a=%2Fb&nextPage=x%3D"),
            format!("/api/v1/{upper}/activity/feed/subscriptions/content?nextPage=20$%241"),
        ] {
            let given = format!("https://manage.office.com{path}");
            assert_eq!(cloud.take(&given), Ok(path.as_str()));
            assert_eq!(simulator.take(&given), Ok(path.as_str()));
            let given = format!("http://127.0.0.1:8123{path}");
            assert_eq!(simulator.take(&given), Ok(path.as_str()));
            assert!(cloud.take(&given).is_err());
        }
    }

    #[test]
    fn hostile_urls_are_refused() {
        let feed = format!("api/v1.0/{TENANT}/activity/feed");
        let good = format!("{feed}/audit/1");
        let root = "https://manage.office.com";
        let hostile = [
            format!("https://evil.test/{good}"),
            format!("https://manage.office.com.evil.test/{good}"),
            format!("https://manage.office.com@evil.test/{good}"),
            format!("https://user:word@manage.office.com/{good}"),
            format!("https://@manage.office.com/{good}"),
            format!("https://:@manage.office.com/{good}"),
            format!("//evil.test/{good}"),
            format!("/{good}"),
            good.clone(),
            String::new(),
            format!("http://manage.office.com/{good}"),
            format!("http://manage.office.com:443/{good}"),
            format!("https://manage.office.com:8443/{good}"),
            format!("https://manage.office.com:80/{good}"),
            format!("HTTPS://manage.office.com/{good}"),
            format!("ftp://manage.office.com/{good}"),
            format!("file:///{good}"),
            format!("javascript:https://manage.office.com/{good}"),
            format!("https:manage.office.com/{good}"),
            format!("https:///evil.test/{good}"),
            format!("https://manage.office.com./{good}"),
            format!("https://manage.offi\u{441}e.com/{good}"),
            format!("https://xn--manage-office-com/{good}"),
            format!("https://manage.office.com\\@evil.test/{good}"),
            format!("https://evil.test\\{good}"),
            format!("https://evil.test#{root}/{good}"),
            format!("https://evil.test?{root}/{good}"),
            format!("https://127.0.0.1/{good}"),
            format!("https://[::ffff:169.254.169.254]/{good}"),
            format!("https://169.254.169.254/{good}"),
            format!("{root}/api/v1.0/{OTHER}/activity/feed/audit/1"),
            format!("{root}/{feed}/../../../{OTHER}/activity/feed/audit/1"),
            format!("{root}/{feed}/%2e%2e/%2E%2e/x"),
            format!("{root}/{feed}/..%2f..%2fx"),
            format!("{root}/{feed}/audit%5c..%5cx"),
            format!("{root}/{feed}/%252e%252e/x"),
            format!("{root}/{feed}//evil.test/x"),
            format!("{root}/{feed}/."),
            format!("{root}/{feed}/"),
            format!("{root}/{feed}x/audit/1"),
            format!("{root}/api/v2/{TENANT}/activity/feed/audit/1"),
            format!("{root}/{TENANT}/oauth2/token"),
            format!("{root}/x/{good}"),
            format!("{root}//{good}"),
            format!("{root}/{good}\r\nHost: evil.test"),
            format!("{root}/{good}%0d%0aHost:evil.test"),
            format!("{root}/{good}%00"),
            format!("{root}/{good} HTTP/1.1"),
            format!("{root}/{good}#fragment"),
            format!("{root}/{feed}/audit/\u{202e}1"),
            format!("{root}/{feed}/audit/<x>"),
            format!("{root}/{feed}/audit/{}", "x".repeat(URL_BYTES_MAX)),
        ];
        assert!(hostile.len() > 40);
        for own in [root, "https://manage-gcc.office.com"] {
            let guard = guard(own);
            for given in &hostile {
                assert!(guard.take(given).is_err(), "{given} on {own}");
            }
        }
    }

    #[test]
    fn an_origin_is_https_or_on_this_machine_and_bare() {
        for good in [
            "https://manage.office.com",
            "http://127.0.0.1:1/",
            "http://[::1]:8",
            "http://localhost:9",
        ] {
            assert!(Origin::new(&good.parse().unwrap()).is_ok(), "{good}");
        }
        for bad in [
            "http://manage.office.com",
            "http://10.0.0.1",
            "http://localhost.evil.test",
            "https://manage.office.com/api",
            "https://u:p@manage.office.com",
            "https://manage.office.com?x",
            "ftp://127.0.0.1",
        ] {
            assert!(Origin::new(&bad.parse().unwrap()).is_err(), "{bad}");
        }
    }
}
