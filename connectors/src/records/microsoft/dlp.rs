//! DLP matches (RecordType 11, 13, 33, 63, 107). The acting user stands in `UserId` or, where that is
//! the agent, in the metadata of the item; mail adds its recipients.

use exfilwatch_model::{Event, field};

use super::super::address;
use super::super::json;
use super::super::members::Members;
use super::super::outside::{set_actor, set_party};
use super::Body;

/// One event per recipient outside, or the event alone.
pub(super) fn events(mut event: Event, record: &Body<'_>) -> Vec<Event> {
    let metadata = |name: &str| record.members.object(name);
    let mail = metadata("ExchangeMetaData");
    let other = || metadata("SharePointMetaData").or_else(|| metadata("EndpointMetaData"));
    if let Some(item) = mail.as_ref().or(other().as_ref()) {
        set_item(&mut event, record, item);
    }
    let outside: Vec<_> = recipients(mail.as_ref())
        .iter()
        .map(|recipient| record.domains.party(recipient))
        .filter(|party| party.class.is_external())
        .collect();
    if outside.is_empty() {
        return vec![event];
    }
    outside
        .iter()
        .map(|party| {
            let mut event = event.clone();
            event.set(field::TARGET, party.address.as_str());
            set_party(&mut event, party);
            event
        })
        .collect()
}

fn set_item(event: &mut Event, record: &Body<'_>, item: &Members<'_>) {
    let first = |names: &[&str]| names.iter().find_map(|name| item.text(name));
    event.set_some(
        field::OBJECT,
        first(&["FilePathUrl", "UniqueID", "MessageID", "Sha256"]),
    );
    event.set_some(
        field::OBJECT_NAME,
        first(&["FileName", "Subject", "ItemName"]),
    );
    event.set_some(
        field::URL,
        item.text("FilePathUrl")
            .filter(|url| url.starts_with("http")),
    );
    if event.is(field::ACTOR_IS_SYSTEM)
        && let Some(user) = first(&["From", "FileOwner", "User"])
    {
        set_actor(event, &record.domains.party(&user));
        event.set(field::ACTOR_IS_SYSTEM, false);
    }
}

/// Recipients of a mail; each list may be an array or text.
fn recipients(mail: Option<&Members<'_>>) -> Vec<String> {
    let lists = ["To", "CC", "BCC"]
        .iter()
        .filter_map(|name| mail?.raw(name));
    lists
        .flat_map(json::each)
        .filter_map(json::text)
        .flat_map(|text| address::entries(&text))
        .map(|entry| entry.name())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chrono::DateTime;
    use exfilwatch_model::{Domains, RawRecord};
    use serde_json::json;

    use super::super::Microsoft365Records;
    use super::*;
    use crate::contract::RecordReader;

    #[test]
    fn a_mail_that_matched_gives_an_event_per_recipient_outside() {
        let record = json!({
            "Id": "d-1", "RecordType": 13, "Operation": "DlpRuleMatch", "UserKey": "DlpAgent", "UserId": "DlpAgent",
            "UserType": 4, "Workload": "Exchange", "PolicyDetails": [{"PolicyName": "cards", "Rules": []}],
            "ExchangeMetaData": {"From": "Alice@contoso.example", "Subject": "list",
                "To": ["bob@contoso.example", "x@evil.example"], "CC": "y@gmail.com", "MessageID": "<1@x>"},
        });
        let reader = Microsoft365Records::new(Arc::new(Domains::new(&["contoso.example"], &[])));
        let record = RawRecord::new(record.to_string().into());
        let events = reader.normalise(&record, DateTime::UNIX_EPOCH).unwrap();
        let targets: Vec<_> = events
            .iter()
            .map(|event| event.text(field::TARGET).unwrap())
            .collect();
        assert_eq!(targets, ["x@evil.example", "y@gmail.com"]);
        assert_eq!(
            events[0].text(field::ACTOR).as_deref(),
            Some("alice@contoso.example")
        );
        assert_eq!(
            events[0].text("PolicyDetails.PolicyName").as_deref(),
            Some("cards")
        );
    }
}
