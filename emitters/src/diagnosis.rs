//! What `doctor` can know of an emitter from its options alone: where it sends, and its secrets.

use exfilwatch_model::SecretSource;
use exfilwatch_model::diagnosis::{Endpoint, Tls, Way};
use url::Url;

use crate::options::{EmitterOptions, SyslogOptions, SyslogTransport, WebhookOptions};
use crate::syslog::host_and_port;
use crate::tls::Trust;

impl EmitterOptions {
    /// Where it connects to; nowhere for files, standard output and UDP, which knows no connection.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        match self {
            Self::SplunkHec(options) => {
                let urls = std::iter::once(&options.url).chain(&options.more_urls);
                let (trust, proxy) = (options.trust(), options.proxy.as_ref());
                urls.filter_map(|url| http(url, &trust, proxy)).collect()
            }
            Self::Syslog(options) => syslog(options).into_iter().collect(),
            Self::Webhook(options) => webhook(options).into_iter().collect(),
            Self::Ndjson(_) | Self::Stdout(_) | Self::Archive(_) => Vec::new(),
        }
    }

    /// The secrets it reads, each with its key in the configuration.
    pub fn secrets(&self) -> Vec<(&'static str, SecretSource)> {
        let mut secrets = match self {
            Self::SplunkHec(options) => vec![("token", options.token.clone())],
            Self::Webhook(options) => [
                ("url_secret", &options.url_secret),
                ("secret", &options.secret),
            ]
            .into_iter()
            .filter_map(|(key, source)| Some((key, source.clone()?)))
            .collect(),
            Self::Syslog(_) | Self::Ndjson(_) | Self::Stdout(_) | Self::Archive(_) => Vec::new(),
        };
        let key = self.fields().and_then(|fields| fields.key.clone());
        secrets.extend(key.map(|key| ("fields.key", key)));
        secrets
    }
}

/// `None` where the URL is a secret: the emitter itself looks then.
fn webhook(options: &WebhookOptions) -> Option<Endpoint> {
    let url = options.url.as_ref()?;
    http(url, &options.trust(), options.proxy.as_ref())
}

fn http(url: &Url, trust: &Trust<'_>, proxy: Option<&Url>) -> Option<Endpoint> {
    let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
    let name = trust
        .server_name
        .map_or_else(|| host.clone(), str::to_owned);
    Some(Endpoint {
        name: "receiver",
        port: url.port_or_known_default()?,
        tls: (url.scheme() == "https").then(|| Tls {
            name,
            ca_file: trust.ca_file.map(Into::into),
            besides_system: true,
            pin_sha256: trust.pin_sha256.to_vec(),
            verifies: trust.verifies_chain(),
        }),
        host,
        http: true,
        proxy: proxy.map_or(Way::Direct, |proxy| Way::Proxy(proxy.to_string())),
    })
}

fn syslog(options: &SyslogOptions) -> Option<Endpoint> {
    let (host, port) = host_and_port(&options.address)?;
    if options.transport == SyslogTransport::Udp {
        return None;
    }
    let tls = options.transport.is_tls().then(|| Tls {
        name: options.server_name.clone().unwrap_or_else(|| host.clone()),
        ca_file: options.ca_file.clone(),
        besides_system: false,
        pin_sha256: Vec::new(),
        verifies: true,
    });
    Some(Endpoint {
        name: "receiver",
        host,
        port,
        tls,
        http: false,
        proxy: Way::Direct,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_place_is_read_from_the_options() {
        let read = |kind: &str, table| crate::registry::read(kind, table).unwrap();
        let hec = read(
            "splunk_hec",
            serde_json::json!({ "url": "https://[::1]:8088", "token": { "env": "T" } }),
        );
        let place = hec.endpoints().remove(0);
        assert_eq!((place.host.as_str(), place.port), ("::1", 8_088));
        assert!(place.tls.is_some());
        assert_eq!(hec.secrets().len(), 1);
        let tls = read(
            "syslog",
            serde_json::json!({ "address": "10.0.0.1:6514", "transport": "tls",
                "server_name": "siem.example" }),
        );
        assert_eq!(tls.endpoints().remove(0).tls.unwrap().name, "siem.example");
        let udp = read(
            "syslog",
            serde_json::json!({ "address": "10.0.0.1:514", "transport": "udp" }),
        );
        assert_eq!(udp.endpoints(), []);
    }
}
