//! The applications of the Reports API: their names, how late they are, what is read by default.
//!
//! "Data retention and lag times" (support page 7061566, 2026-04) and field reports; the table is
//! in spec/connectors.md 3.4. Reconciliation makes the exact figures a matter of comfort. Any other
//! name is taken too, since the vendor's list grows.

use chrono::TimeDelta;

/// The stream of the Alert Center: no application of the Reports API, and asked for like one.
pub const ALERT_CENTER: &str = "alertcenter";

/// Names in the vendor's reference (2026-04), besides those of newer discovery documents.
pub const KNOWN: [&str; 39] = [
    "access_evaluation",
    "access_transparency",
    "admin",
    "admin_data_action",
    "assignments",
    "calendar",
    "chat",
    "chrome",
    "classroom",
    "cloud_search",
    "contacts",
    "context_aware_access",
    "data_migration",
    "data_studio",
    "directory_sync",
    "drive",
    "gcp",
    "gemini_in_workspace_apps",
    "gmail",
    "gplus",
    "graduation",
    "groups",
    "groups_enterprise",
    "jamboard",
    "keep",
    "ldap",
    "login",
    "meet",
    "meet_hardware",
    "mobile",
    "profile",
    "rules",
    "saml",
    "takeout",
    "tasks",
    "token",
    "user_accounts",
    "vault",
    ALERT_CENTER,
];

/// Applications read where none are named.
pub const DEFAULT: [&str; 9] = [
    "drive",
    "admin",
    "login",
    "token",
    "user_accounts",
    "groups",
    "groups_enterprise",
    "calendar",
    "rules",
];

/// How late an application is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lateness {
    /// How far a window's end stays behind the present.
    pub lag: TimeDelta,
    /// How far is read again for late records, every half hour.
    pub overlap: TimeDelta,
}

/// What holds where the configuration says nothing else.
pub fn lateness(application: &str) -> Lateness {
    let (lag, overlap) = match application {
        "admin" | "drive" | "user_accounts" | "rules" | "saml" | "chat" | "gmail" | "vault"
        | "takeout" => (TimeDelta::minutes(3), TimeDelta::minutes(30)),
        "login" | "calendar" | "meet" => (TimeDelta::minutes(5), TimeDelta::hours(3)),
        ALERT_CENTER => (TimeDelta::minutes(3), TimeDelta::days(1)),
        _ => (TimeDelta::minutes(10), TimeDelta::hours(4)),
    };
    Lateness { lag, overlap }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_the_spec_holds_and_an_unknown_name_is_given_time() {
        let cases = [
            ("drive", 3, 30),
            ("takeout", 3, 30),
            ("login", 5, 180),
            ("meet", 5, 180),
            ("token", 10, 240),
            ("groups_enterprise", 10, 240),
            ("invented_next_year", 10, 240),
            (ALERT_CENTER, 3, 1_440),
        ];
        for (name, lag, overlap) in cases {
            let expected = Lateness {
                lag: TimeDelta::minutes(lag),
                overlap: TimeDelta::minutes(overlap),
            };
            assert_eq!(lateness(name), expected, "{name}");
        }
        assert!(KNOWN.windows(2).take(37).all(|pair| pair[0] < pair[1]));
        assert!(DEFAULT.iter().all(|name| KNOWN.contains(name)));
    }
}
