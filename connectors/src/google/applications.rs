//! How late the applications of the Reports API are, and what is read by default.
//!
//! "Data retention and lag times" (support page 7061566, 2026-04) and field reports; the table is
//! in spec/connectors.md 3.4. Reconciliation makes the exact figures a matter of comfort.

use chrono::TimeDelta;

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

/// How far a window's end stays behind the present.
pub fn lag(application: &str) -> TimeDelta {
    match application {
        "admin" | "drive" | "user_accounts" | "rules" | "saml" | "chat" | "gmail" | "vault"
        | "takeout" => TimeDelta::minutes(3),
        "login" | "calendar" | "meet" => TimeDelta::minutes(5),
        _ => TimeDelta::minutes(10),
    }
}

/// How far is read again for late records, every half hour.
pub fn overlap(application: &str) -> TimeDelta {
    match application {
        "admin" | "drive" | "user_accounts" | "rules" | "saml" | "chat" | "gmail" | "vault"
        | "takeout" => TimeDelta::minutes(30),
        "login" | "calendar" | "meet" => TimeDelta::hours(3),
        _ => TimeDelta::hours(4),
    }
}
