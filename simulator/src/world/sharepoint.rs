//! SharePoint and OneDrive: files opened and changed, shares with colleagues, a few with guests.

use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::book::{Book, new_guid, one_of};
use super::people::Person;

/// Content type of these records.
pub(crate) const CONTENT: &str = "Audit.SharePoint";

const AGENT: &str =
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/140.0.0.0 Safari/537.36";
const TITLES: [&str; 8] = [
    "Accounts Overview",
    "Budget 2027",
    "Customer list",
    "Design notes",
    "Holiday plan",
    "Offer Fabrikam",
    "Price list",
    "Project Orchard",
];

/// A document in somebody's OneDrive.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    pub(crate) name: String,
    site: String,
}

impl Document {
    /// Number `number` of `owner`'s documents.
    pub(crate) fn of(book: &Book<'_>, owner: &Person, number: usize) -> Self {
        let title = TITLES
            .get(number % TITLES.len())
            .copied()
            .unwrap_or("Notes");
        let folder = owner.email.replace(['@', '.'], "_");
        Self {
            name: format!("{title} {number}.docx"),
            site: format!(
                "https://{}-my.sharepoint.com/personal/{folder}",
                book.tenant.alias
            ),
        }
    }
}

/// The members every file record has, for one operation on one document.
fn file_members(
    (operation, record_type): (&str, u32),
    actor: &Person,
    document: &Document,
    rng: &mut StdRng,
) -> Vec<(&'static str, Value)> {
    vec![
        ("Operation", json!(operation)),
        ("RecordType", json!(record_type)),
        (
            "UserKey",
            json!(format!(
                "i:0h.f|membership|{}@live.com",
                actor.puid.to_lowercase()
            )),
        ),
        ("UserType", json!(0)),
        ("Workload", json!("OneDrive")),
        ("ClientIP", json!(actor.ip)),
        (
            "ObjectId",
            json!(format!("{}/Documents/{}", document.site, document.name)),
        ),
        ("UserId", json!(actor.email)),
        ("CorrelationId", json!(new_guid(rng).to_string())),
        ("EventSource", json!("SharePoint")),
        ("ItemType", json!("File")),
        ("ListItemUniqueId", json!(new_guid(rng).to_string())),
        ("Site", json!(new_guid(rng).to_string())),
        ("UserAgent", json!(AGENT)),
        ("SiteUrl", json!(document.site)),
        ("SourceFileExtension", json!("docx")),
        ("SourceFileName", json!(document.name)),
        ("SourceRelativeUrl", json!("Documents")),
    ]
}

/// A share of a document with one person by a link; outside people are guests.
pub(crate) fn share(
    book: &mut Book<'_>,
    at: i64,
    rng: &mut StdRng,
    what: (&Person, &Document, &str),
) -> String {
    link_member(book, at, rng, "AddedToSecureLink", what)
}

/// The end of such a share.
pub(crate) fn taken_back(
    book: &mut Book<'_>,
    at: i64,
    rng: &mut StdRng,
    what: (&Person, &Document, &str),
) -> String {
    link_member(book, at, rng, "RemovedFromSecureLink", what)
}

/// Microsoft writes a guest's name either as the plain address or as the guest account's.
fn link_member(
    book: &mut Book<'_>,
    at: i64,
    rng: &mut StdRng,
    operation: &'static str,
    (actor, document, address): (&Person, &Document, &str),
) -> String {
    let inside = address.ends_with(&format!("@{}", book.tenant.domain));
    let name = if inside || rng.random_bool(0.5) {
        address.to_owned()
    } else {
        format!(
            "{}#ext#@{}",
            address.replace('@', "_"),
            book.tenant.onmicrosoft
        )
    };
    let mut members = file_members((operation, 14), actor, document, rng);
    members.push((
        "EventData",
        json!("<Type>Edit</Type><MembersCanShareApplied>False</MembersCanShareApplied>"),
    ));
    members.push((
        "TargetUserOrGroupType",
        json!(if inside { "Member" } else { "Guest" }),
    ));
    members.push(("TargetUserOrGroupName", json!(name)));
    book.office365(CONTENT, at, rng, members)
}

/// A link to a document that anyone can use without signing in.
pub(crate) fn anonymous_link(
    book: &mut Book<'_>,
    at: i64,
    rng: &mut StdRng,
    (actor, document): (&Person, &Document),
) -> String {
    let mut members = file_members(("AnonymousLinkCreated", 14), actor, document, rng);
    members.push((
        "EventData",
        json!("<Type>View</Type><IsHiddenFromLinkSettings>False</IsHiddenFromLinkSettings>"),
    ));
    book.office365(CONTENT, at, rng, members)
}

/// A document fetched by the sync client of a machine.
pub(crate) fn synced(
    book: &mut Book<'_>,
    at: i64,
    rng: &mut StdRng,
    (actor, document, machine): (&Person, &Document, &Value),
) -> String {
    let mut members = file_members(("FileSyncDownloadedFull", 6), actor, document, rng);
    members.push(("MachineId", machine.clone()));
    book.office365(CONTENT, at, rng, members)
}

/// One ordinary record.
pub(crate) fn ordinary(book: &mut Book<'_>, at: i64, rng: &mut StdRng) {
    let tenant = book.tenant;
    let actor = tenant.anyone(rng);
    let document = Document::of(book, actor, rng.random_range(0..40));
    match rng.random_range(0..100) {
        0..94 => {
            const OPERATIONS: [(&str, u32); 7] = [
                ("FileAccessed", 6),
                ("FileAccessed", 6),
                ("FileModified", 6),
                ("FileUploaded", 6),
                ("FilePreviewed", 6),
                ("FileDownloaded", 6),
                ("PageViewed", 4),
            ];
            let operation = one_of(&OPERATIONS, rng);
            let members = file_members(operation, actor, &document, rng);
            book.office365(CONTENT, at, rng, members);
        }
        94..99 => {
            let colleague = tenant.anyone(rng).email.clone();
            share(book, at, rng, (actor, &document, &colleague));
        }
        _ => {
            let guest = format!("buyer@{}", one_of(&tenant.partner_domains(), rng));
            share(book, at, rng, (actor, &document, &guest));
        }
    }
}
