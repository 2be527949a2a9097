//! What `doctor` can know of an emitter from its options alone: where it sends, and its secrets.

use std::path::PathBuf;

use exfilwatch_model::SecretSource;
use exfilwatch_model::diagnosis::{Endpoint, Tls, Way};
use url::Url;

use crate::options::{
    EmitterOptions, SplunkHecOptions, SyslogOptions, SyslogTransport, WebhookOptions,
};
use crate::syslog::host_and_port;

impl EmitterOptions {
    /// Where it connects to; `None` for files, standard output and UDP, which knows no connection.
    pub fn endpoint(&self) -> Option<Endpoint> {
        match self {
            Self::SplunkHec(options) => hec(options),
            Self::Syslog(options) => syslog(options),
            Self::Webhook(options) => webhook(options),
            Self::Ndjson(_) | Self::Stdout(_) | Self::Archive(_) => None,
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

fn hec(options: &SplunkHecOptions) -> Option<Endpoint> {
    http(
        &options.url,
        options.ca_file.as_ref(),
        options.proxy.as_ref(),
    )
}

/// `None` where the URL is a secret: the emitter itself looks then.
fn webhook(options: &WebhookOptions) -> Option<Endpoint> {
    let url = options.url.as_ref()?;
    http(url, options.ca_file.as_ref(), options.proxy.as_ref())
}

fn http(url: &Url, ca_file: Option<&PathBuf>, proxy: Option<&Url>) -> Option<Endpoint> {
    let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
    Some(Endpoint {
        name: "receiver",
        port: url.port_or_known_default()?,
        tls: (url.scheme() == "https").then(|| Tls {
            name: host.clone(),
            ca_file: ca_file.cloned(),
            besides_system: true,
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
        let place = hec.endpoint().unwrap();
        assert_eq!((place.host.as_str(), place.port), ("::1", 8_088));
        assert!(place.tls.is_some());
        assert_eq!(hec.secrets().len(), 1);
        let tls = read(
            "syslog",
            serde_json::json!({ "address": "10.0.0.1:6514", "transport": "tls",
                "server_name": "siem.example" }),
        );
        assert_eq!(tls.endpoint().unwrap().tls.unwrap().name, "siem.example");
        let udp = read(
            "syslog",
            serde_json::json!({ "address": "10.0.0.1:514", "transport": "udp" }),
        );
        assert_eq!(udp.endpoint(), None);
    }
}
