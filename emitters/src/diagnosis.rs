//! What `doctor` can know of an emitter from its options alone: where it sends, and its secrets.

use exfilwatch_model::SecretSource;
use exfilwatch_model::diagnosis::{Endpoint, Tls, Way};

use crate::options::{EmitterOptions, SplunkHecOptions, SyslogOptions, SyslogTransport};
use crate::syslog::host_and_port;

impl EmitterOptions {
    /// Where it connects to; `None` for files, standard output and UDP, which knows no connection.
    pub fn endpoint(&self) -> Option<Endpoint> {
        match self {
            Self::SplunkHec(options) => hec(options),
            Self::Syslog(options) => syslog(options),
            Self::Ndjson(_) | Self::Stdout(_) | Self::Archive(_) => None,
        }
    }

    /// The secrets it reads, each with its key in the configuration.
    pub fn secrets(&self) -> Vec<(&'static str, SecretSource)> {
        match self {
            Self::SplunkHec(options) => vec![("token", options.token.clone())],
            Self::Syslog(_) | Self::Ndjson(_) | Self::Stdout(_) | Self::Archive(_) => Vec::new(),
        }
    }
}

fn hec(options: &SplunkHecOptions) -> Option<Endpoint> {
    let host = options.url.host_str()?.trim_matches(['[', ']']).to_owned();
    Some(Endpoint {
        name: "receiver",
        port: options.url.port_or_known_default()?,
        tls: (options.url.scheme() == "https").then(|| Tls {
            name: host.clone(),
            ca_file: options.ca_file.clone(),
            besides_system: true,
        }),
        host,
        http: true,
        proxy: match &options.proxy {
            Some(proxy) => Way::Proxy(proxy.to_string()),
            None => Way::Direct,
        },
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
