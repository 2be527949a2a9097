//! The hosts of each Microsoft cloud ("Office 365 Management Activity API reference", 2026-06;
//! "Microsoft Graph national cloud deployments", 2026-06).
//!
//! One choice fixes all of them: a token of one cloud is refused by the hosts of another
//! (AADSTS900382).

use crate::options::Cloud;

/// All clouds.
pub const CLOUDS: [Cloud; 4] = [Cloud::Commercial, Cloud::Gcc, Cloud::GccHigh, Cloud::Dod];

/// The origins of a cloud, each without a slash at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hosts {
    /// The Management Activity API; also the audience of its tokens.
    pub api: &'static str,
    /// The token endpoint.
    pub login: &'static str,
    /// Microsoft Graph; also the audience of its tokens.
    pub graph: &'static str,
}

/// The hosts of a cloud.
pub const fn hosts(cloud: Cloud) -> Hosts {
    match cloud {
        Cloud::Commercial => Hosts {
            api: "https://manage.office.com",
            login: "https://login.microsoftonline.com",
            graph: "https://graph.microsoft.com",
        },
        Cloud::Gcc => Hosts {
            api: "https://manage-gcc.office.com",
            login: "https://login.microsoftonline.com",
            graph: "https://graph.microsoft.com",
        },
        Cloud::GccHigh => Hosts {
            api: "https://manage.office365.us",
            login: "https://login.microsoftonline.us",
            graph: "https://graph.microsoft.us",
        },
        Cloud::Dod => Hosts {
            api: "https://manage.protection.apps.mil",
            login: "https://login.microsoftonline.us",
            graph: "https://dod-graph.microsoft.us",
        },
    }
}

/// Origin of the Management Activity API; also the audience of its tokens.
pub const fn api_root(cloud: Cloud) -> &'static str {
    hosts(cloud).api
}

/// Origin of the token endpoint.
pub const fn login_root(cloud: Cloud) -> &'static str {
    hosts(cloud).login
}

/// Origin of Microsoft Graph; also the audience of its tokens.
pub const fn graph_root(cloud: Cloud) -> &'static str {
    hosts(cloud).graph
}
