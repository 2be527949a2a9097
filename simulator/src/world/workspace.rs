//! The other Google applications: admin, login, token, user_accounts, groups, calendar, rules.

use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::book::{Activity, Book, one_of, qualifier};
use super::people::Person;

fn text(name: &str, value: &str) -> Value {
    json!({ "name": name, "value": value })
}

fn event(kind: &str, name: &str, parameters: Vec<Value>) -> Value {
    let parameters = Value::Array(parameters);
    json!({ "type": kind, "name": name, "parameters": parameters })
}

/// One ordinary item of a mixture of applications.
pub(crate) fn ordinary(book: &mut Book<'_>, at: i64, rng: &mut StdRng) {
    let tenant = book.tenant;
    let person = tenant.anyone(rng);
    match rng.random_range(0..100) {
        0..40 => login(book, at, rng, person),
        40..65 => token(book, at, rng, person),
        65..80 => calendar(book, at, rng, person),
        80..90 => admin(book, at, rng),
        90..94 => write(
            book,
            at,
            rng,
            ("groups_enterprise", Some(tenant.admin())),
            group_member(person),
        ),
        94..97 => account_change(book, at, rng, person),
        97 => write(
            book,
            at,
            rng,
            ("groups", Some(person)),
            group_setting(tenant.domain.as_str()),
        ),
        _ => write(book, at, rng, ("rules", Some(person)), rule_match(person)),
    }
}

fn write(
    book: &mut Book<'_>,
    at: i64,
    rng: &mut StdRng,
    (application, actor): (&'static str, Option<&Person>),
    events: Vec<Value>,
) {
    let qualifier = qualifier(rng);
    let activity = Activity {
        application,
        event_ms: at,
        actor,
        with_ip: true,
        qualifier,
        events,
    };
    book.google(activity, rng);
}

/// A login: its qualifier is a constant of the user, and a challenge shares time and qualifier.
fn login(book: &mut Book<'_>, at: i64, rng: &mut StdRng, person: &Person) {
    let name = one_of(
        &["login_success", "login_success", "login_failure", "logout"],
        rng,
    );
    let method = json!({ "name": "login_challenge_method", "multiValue": ["password"] });
    let kind = text("login_type", "google_password");
    let mut parameters = vec![kind.clone(), method];
    if name == "login_success" {
        parameters.push(json!({ "name": "is_suspicious", "boolValue": false }));
    }
    let item = |events: Vec<Value>| Activity {
        application: "login",
        event_ms: at,
        actor: Some(person),
        with_ip: true,
        qualifier: person.login_qualifier.clone(),
        events,
    };
    book.google(item(vec![event("login", name, parameters)]), rng);
    if name == "login_success" && rng.random_bool(0.3) {
        let status = text("login_challenge_status", "passed");
        book.google(
            item(vec![event(
                "login",
                "login_verification",
                vec![kind, status],
            )]),
            rng,
        );
    }
}

/// A sign-in with a wrong password.
pub(crate) fn failed_login(book: &mut Book<'_>, at: i64, rng: &mut StdRng, person: &Person) {
    let method = json!({ "name": "login_challenge_method", "multiValue": ["password"] });
    let kind = text("login_type", "google_password");
    let failure = text("login_failure_type", "login_failure_invalid_password");
    let activity = Activity {
        application: "login",
        event_ms: at,
        actor: Some(person),
        with_ip: true,
        qualifier: person.login_qualifier.clone(),
        events: vec![event("login", "login_failure", vec![kind, method, failure])],
    };
    book.google(activity, rng);
}

fn token(book: &mut Book<'_>, at: i64, rng: &mut StdRng, person: &Person) {
    let bytes = rng.random_range(100..90_000).to_string();
    let name = one_of(&["activity", "activity", "authorize"], rng);
    let events = vec![event(
        "auth",
        name,
        vec![
            text("client_id", "407408718192.apps.googleusercontent.com"),
            text("app_name", "Planner"),
            text("api_name", "calendar"),
            json!({ "name": "num_response_bytes", "intValue": bytes }),
            json!({ "name": "scope", "multiValue": ["openid", "email"] }),
            json!({ "name": "scope_data", "multiMessageValue": [{ "parameter": [
                { "name": "scope_name", "value": "openid" },
                { "name": "product_bucket", "multiValue": ["IDENTITY"] },
            ]}]}),
        ],
    )];
    write(book, at, rng, ("token", Some(person)), events);
}

fn calendar(book: &mut Book<'_>, at: i64, rng: &mut StdRng, person: &Person) {
    let kinds = ["event_reminder", "new_event", "changed_event"];
    let events = kinds
        .iter()
        .take(rng.random_range(1..=kinds.len()))
        .map(|kind| {
            event(
                "subscription_change",
                "add_subscription",
                vec![
                    text("calendar_id", &person.email),
                    text("notification_type", kind),
                    text("notification_method", "alert"),
                ],
            )
        })
        .collect();
    write(book, at, rng, ("calendar", Some(person)), events);
}

fn admin(book: &mut Book<'_>, at: i64, rng: &mut StdRng) {
    let tenant = book.tenant;
    let person = tenant.anyone(rng);
    match rng.random_range(0..3) {
        0 => {
            let events = vec![event(
                "USER_SETTINGS",
                "CHANGE_PASSWORD",
                vec![text("USER_EMAIL", &person.email)],
            )];
            write(book, at, rng, ("admin", Some(tenant.admin())), events);
        }
        1 => {
            let revoke = |license: &str| {
                event(
                    "LICENSES_SETTINGS",
                    "USER_LICENSE_REVOKE",
                    vec![
                        text("USER_EMAIL", &person.email),
                        text("OLD_VALUE", license),
                    ],
                )
            };
            let events = vec![
                revoke("Google Workspace Business Standard"),
                revoke("AppSheet Core"),
            ];
            write(book, at, rng, ("admin", None), events);
        }
        _ => {
            // An event without parameters has no such member at all.
            let events = vec![json!({ "type": "ALERT_CENTER", "name": "ALERT_CENTER_VIEW" })];
            write(book, at, rng, ("admin", Some(tenant.admin())), events);
        }
    }
}

/// A change of the own account, which Google reports in two applications with one identity.
fn account_change(book: &mut Book<'_>, at: i64, rng: &mut StdRng, person: &Person) {
    let events = vec![json!({ "type": "password_change", "name": "password_edit" })];
    in_two_applications(book, at, rng, person, &events);
}

/// Writes the same event in `login` and `user_accounts`: equal time, equal qualifier.
pub(crate) fn in_two_applications(
    book: &mut Book<'_>,
    at: i64,
    rng: &mut StdRng,
    person: &Person,
    events: &[Value],
) -> Vec<String> {
    let qualifier = qualifier(rng);
    ["login", "user_accounts"]
        .into_iter()
        .map(|application| {
            let activity = Activity {
                application,
                event_ms: at,
                actor: Some(person),
                with_ip: true,
                qualifier: qualifier.clone(),
                events: events.to_vec(),
            };
            book.google(activity, rng)
        })
        .collect()
}

fn group_member(person: &Person) -> Vec<Value> {
    let domain = person.email.rsplit('@').next().unwrap_or_default();
    let parameters = vec![
        text("member_id", &person.email),
        text("group_id", &format!("sales@{domain}")),
        json!({ "name": "member_role", "multiValue": ["member"] }),
        text("member_type", "user"),
    ];
    vec![event("moderator_action", "add_member", parameters)]
}

fn group_setting(domain: &str) -> Vec<Value> {
    let parameters = vec![
        text("group_email", &format!("sales@{domain}")),
        text("basic_setting", "description"),
    ];
    vec![event("acl_change", "change_basic_setting", parameters)]
}

fn rule_match(person: &Person) -> Vec<Value> {
    let parameters = vec![
        text("rule_name", "Card numbers"),
        text("data_source", "DRIVE"),
        text("resource_owner_email", &person.email),
        json!({ "name": "has_content_match", "boolValue": true }),
    ];
    vec![event("rule_match_type", "rule_match", parameters)]
}
