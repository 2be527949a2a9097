//! Exchange: the service's own provisioning (most admin records), mail access, and people's rules.

use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::book::{Book, ORDINARY, new_guid, one_of};
use super::people::Person;

/// Content type of these records.
pub(crate) const CONTENT: &str = "Audit.Exchange";

const SERVER: &str = "DB8PR04MB6875 (15.20.8042.018)";
const OUTLOOK_WEB: &str = "00000002-0000-0ff1-ce00-000000000000";

/// `[{Name, Value}]`, the shape of `Parameters`.
pub(crate) fn parameters(pairs: &[(&str, &str)]) -> Value {
    pairs
        .iter()
        .map(|(name, value)| json!({ "Name": name, "Value": value }))
        .collect()
}

/// A cmdlet run by a person.
#[derive(Debug)]
pub(crate) struct Cmdlet<'p> {
    pub(crate) operation: &'static str,
    pub(crate) actor: &'p Person,
    /// Network address; Exchange adds a port.
    pub(crate) ip: String,
    pub(crate) object: String,
    pub(crate) parameters: Value,
    pub(crate) succeeded: bool,
}

impl<'p> Cmdlet<'p> {
    /// A cmdlet that succeeds, from the actor's own network.
    pub(crate) fn new(
        operation: &'static str,
        actor: &'p Person,
        object: &str,
        pairs: &[(&str, &str)],
    ) -> Self {
        Self {
            operation,
            actor,
            ip: actor.ip.clone(),
            object: object.to_owned(),
            parameters: parameters(pairs),
            succeeded: true,
        }
    }

    /// Writes the record down.
    pub(crate) fn write(self, book: &mut Book<'_>, at: i64, rng: &mut StdRng) -> String {
        let port = rng.random_range(20_000..60_000);
        let organization = book.tenant.onmicrosoft.clone();
        let session = new_guid(rng).to_string();
        book.office365(
            CONTENT,
            at,
            rng,
            vec![
                ("Operation", json!(self.operation)),
                ("RecordType", json!(1)),
                (
                    "ResultStatus",
                    json!(if self.succeeded { "True" } else { "False" }),
                ),
                ("UserKey", json!(self.actor.puid)),
                ("UserType", json!(2)),
                ("Workload", json!("Exchange")),
                ("ClientIP", json!(format!("{}:{port}", self.ip))),
                ("ObjectId", json!(self.object)),
                ("UserId", json!(self.actor.email)),
                ("AppId", json!(OUTLOOK_WEB)),
                ("ClientAppId", json!("")),
                ("ExternalAccess", json!(false)),
                ("OrganizationName", json!(organization)),
                ("OriginatingServer", json!(SERVER)),
                ("Parameters", self.parameters),
                ("SessionId", json!(session)),
            ],
        )
    }
}

/// One ordinary record.
pub(crate) fn ordinary(book: &mut Book<'_>, at: i64, rng: &mut StdRng) {
    match rng.random_range(0..100) {
        0..55 => provisioning(book, at, rng),
        55..80 => mail_access(book, at, rng),
        80..90 => mail_sent(book, at, rng),
        90..97 => harmless_setting(book, at, rng),
        97 | 98 => internal_inbox_rule(book, at, rng),
        _ => forwarding_without_effect(book, at, rng),
    }
}

/// Microsoft's own maintenance, which makes up most of the admin records.
fn provisioning(book: &mut Book<'_>, at: i64, rng: &mut StdRng) {
    const OPERATIONS: [&str; 6] = [
        "Set-Mailbox",
        "Set-Mailbox",
        "Set-MailboxPlan",
        "Set-TransportConfig",
        "Set-User",
        "Install-DefaultSharingPolicy",
    ];
    let operation = one_of(&OPERATIONS, rng);
    let organization = book.tenant.onmicrosoft.clone();
    let mailbox = book.tenant.anyone(rng).local.clone();
    let object = format!(
        "EURPR04A009.PROD.OUTLOOK.COM/Microsoft Exchange Hosted Organizations/{organization}/{mailbox}"
    );
    let system = "NT AUTHORITY\\SYSTEM (Microsoft.Exchange.ServiceHost)";
    book.office365(
        CONTENT,
        at,
        rng,
        vec![
            ("Operation", json!(operation)),
            ("RecordType", json!(1)),
            ("ResultStatus", json!("True")),
            ("UserKey", json!(system)),
            ("UserType", json!(3)),
            ("Workload", json!("Exchange")),
            ("ObjectId", json!(object)),
            ("UserId", json!(system)),
            ("AppId", json!("")),
            ("ClientAppId", json!("")),
            ("ExternalAccess", json!(true)),
            ("OrganizationName", json!(organization)),
            ("OriginatingServer", json!(SERVER)),
            (
                "Parameters",
                parameters(&[
                    ("Force", "True"),
                    ("MaxSendSize", "1 GB (1,073,741,824 bytes)"),
                    ("Identity", &object),
                ]),
            ),
        ],
    );
}

fn mail_access(book: &mut Book<'_>, at: i64, rng: &mut StdRng) {
    let person = book.tenant.anyone(rng);
    let organization = book.tenant.onmicrosoft.clone();
    let count = rng.random_range(1..9);
    let items: Vec<Value> = (0..count)
        .map(|_| {
            let id: u64 = rng.random();
            json!({ "InternetMessageId": format!("<{id:x}@{organization}>"), "SizeInBytes": id % 90_000 })
        })
        .collect();
    book.office365(
        CONTENT,
        at,
        rng,
        vec![
            ("Operation", json!("MailItemsAccessed")),
            ("RecordType", json!(50)),
            ("ResultStatus", json!("Succeeded")),
            ("UserKey", json!(person.puid)),
            ("UserType", json!(0)),
            ("Workload", json!("Exchange")),
            ("UserId", json!(person.email)),
            ("ClientIPAddress", json!(person.ip)),
            ("ClientInfoString", json!("Client=OWA;Action=ViaProxy")),
            ("ExternalAccess", json!(false)),
            ("InternalLogonType", json!(0)),
            ("LogonType", json!(0)),
            ("MailboxOwnerUPN", json!(person.email)),
            (
                "OperationProperties",
                parameters(&[("MailAccessType", "Bind"), ("IsThrottled", "False")]),
            ),
            ("OrganizationName", json!(organization)),
            (
                "Folders",
                json!([{ "FolderItems": items, "Path": "\\Inbox" }]),
            ),
            ("OperationCount", json!(count)),
        ],
    );
}

fn mail_sent(book: &mut Book<'_>, at: i64, rng: &mut StdRng) {
    const SUBJECTS: [&str; 4] = [
        "Minutes",
        "Re: Offer",
        "Lunch on Friday?",
        "Q3 figures \u{2013} draft",
    ];
    let person = book.tenant.anyone(rng);
    let organization = book.tenant.onmicrosoft.clone();
    let subject = one_of(&SUBJECTS, rng);
    book.office365(
        CONTENT,
        at,
        rng,
        vec![
            ("Operation", json!("Send")),
            ("RecordType", json!(2)),
            ("ResultStatus", json!("Succeeded")),
            ("UserKey", json!(person.puid)),
            ("UserType", json!(0)),
            ("Workload", json!("Exchange")),
            ("ClientIP", json!(person.ip)),
            ("UserId", json!(person.email)),
            ("ExternalAccess", json!(false)),
            ("MailboxOwnerUPN", json!(person.email)),
            ("OrganizationName", json!(organization)),
            (
                "Item",
                json!({ "Subject": subject, "ParentFolder": { "Path": "\\Drafts" } }),
            ),
            ("SaveToSentItems", json!(true)),
        ],
    );
}

/// Settings people change that forward nothing.
fn harmless_setting(book: &mut Book<'_>, at: i64, rng: &mut StdRng) {
    let tenant = book.tenant;
    let person = tenant.anyone(rng);
    let cmdlet = match rng.random_range(0..3) {
        0 => Cmdlet::new(
            "New-InboxRule",
            person,
            &format!("{}\\Newsletters", person.local),
            &[
                ("Name", "Newsletters"),
                ("MoveToFolder", "Newsletters"),
                ("Force", "False"),
            ],
        ),
        1 => Cmdlet::new(
            "Set-Mailbox",
            tenant.admin(),
            &person.local,
            &[
                ("Identity", &person.email),
                ("MessageCopyForSentAsEnabled", "True"),
            ],
        ),
        _ => Cmdlet::new(
            "Set-MailboxAutoReplyConfiguration",
            person,
            &person.local,
            &[("Identity", &person.email), ("AutoReplyState", "Scheduled")],
        ),
    };
    cmdlet.write(book, at, rng);
}

/// A rule that forwards to a colleague: daily work, and a signal.
fn internal_inbox_rule(book: &mut Book<'_>, at: i64, rng: &mut StdRng) {
    let tenant = book.tenant;
    let person = tenant.anyone(rng);
    let colleague = tenant.anyone(rng);
    let id = Cmdlet::new(
        "New-InboxRule",
        person,
        &format!("{}\\Invoices", person.local),
        &[
            ("Name", "Invoices"),
            ("SubjectContainsWords", "invoice"),
            ("ForwardTo", &colleague.email),
        ],
    )
    .write(book, at, rng);
    let entity = format!("{} -> {}", person.email, colleague.email);
    book.due(
        "o365.mail.inbox_rule_forwarding",
        ORDINARY,
        &entity,
        &[(id, at)],
    );
}

/// Forwarding that is taken away, or that failed to be set: nothing is due for either.
fn forwarding_without_effect(book: &mut Book<'_>, at: i64, rng: &mut StdRng) {
    let tenant = book.tenant;
    let person = tenant.anyone(rng);
    let removed = rng.random_bool(0.5);
    let address = if removed { "" } else { "smtp:home@proton.me" };
    let mut cmdlet = Cmdlet::new(
        "Set-Mailbox",
        person,
        &person.local,
        &[
            ("Identity", &person.email),
            ("ForwardingSmtpAddress", address),
        ],
    );
    cmdlet.succeeded = removed;
    cmdlet.write(book, at, rng);
}
