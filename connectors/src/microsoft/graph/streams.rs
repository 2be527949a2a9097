//! Which records of the audit log belong to which stream, and what it takes to read all of them.
//!
//! The feed sorts records into content types; a search sorts by record type. Four streams ask for
//! the record types that their content type is made of. `Audit.General` is everything else, and what
//! that is grows by the month: more than a hundred record types have no name in Graph's list at all,
//! so no filter could ask for them. Its search has no filter, and the records that another stream's
//! search gives are left out when it is read. So together the five miss nothing, at the price of
//! reading the others' records twice. `serviceFilter` and `serviceFilters` are not sent: the pages of
//! the reference disagree on which of them there is.
//!
//! Where the feed puts a record into another stream than this table, it is known all the same: the
//! seen index is the tenant's, not the stream's.

/// The permission to read everything.
pub(super) const READ_ALL: &str = "AuditLogsQuery.Read.All";

const EXCHANGE: [&str; 5] = [
    "exchangeAdmin",
    "exchangeItem",
    "exchangeItemGroup",
    "exchangeAggregatedOperation",
    "exchangeItemAggregated",
];
const SHAREPOINT: [&str; 9] = [
    "sharePoint",
    "sharePointFileOperation",
    "oneDrive",
    "sharePointSharingOperation",
    "sharePointListOperation",
    "sharePointCommentOperation",
    "sharePointListItemOperation",
    "sharePointContentTypeOperation",
    "sharePointFieldOperation",
];
const ENTRA: [&str; 3] = [
    "azureActiveDirectory",
    "azureActiveDirectoryAccountLogon",
    "azureActiveDirectoryStsLogon",
];
const DLP: [&str; 6] = [
    "complianceDLPSharePoint",
    "complianceDLPExchange",
    "complianceDLPSharePointClassification",
    "dlpEndpoint",
    "complianceDLPExchangeClassification",
    "complianceDLPEndpoint",
];

/// The record types to ask for; none where the whole log is read.
pub(super) fn filter(stream: &str) -> &'static [&'static str] {
    match stream {
        "Audit.Exchange" => &EXCHANGE,
        "Audit.SharePoint" => &SHAREPOINT,
        "Audit.AzureActiveDirectory" => &ENTRA,
        "DLP.All" => &DLP,
        _ => &[],
    }
}

/// Whether a record that the stream's search gave is the stream's. `record_type` is Graph's name.
pub(super) fn belongs(stream: &str, record_type: Option<&str>) -> bool {
    if !filter(stream).is_empty() {
        return true;
    }
    let Some(record_type) = record_type else {
        return true;
    };
    let mut others = [&EXCHANGE[..], &SHAREPOINT, &ENTRA, &DLP]
        .into_iter()
        .flatten();
    // The page of the type writes its members with a capital, all others without.
    !others.any(|other| other.eq_ignore_ascii_case(record_type))
}

/// The permissions that suffice together in place of [`READ_ALL`]; none where nothing less does.
pub(super) fn workload_permissions(stream: &str) -> &'static [&'static str] {
    match stream {
        "Audit.Exchange" => &["AuditLogsQuery-Exchange.Read.All"],
        // OneDrive's records are in the same stream.
        "Audit.SharePoint" => &[
            "AuditLogsQuery-SharePoint.Read.All",
            "AuditLogsQuery-OneDrive.Read.All",
        ],
        "Audit.AzureActiveDirectory" => &["AuditLogsQuery-Entra.Read.All"],
        _ => &[],
    }
}

/// What is missing for reading all records of the stream; `None` where nothing is.
pub(in crate::microsoft) fn missing_permission(stream: &str, roles: &[String]) -> Option<String> {
    let has = |wanted: &str| roles.iter().any(|role| role == wanted);
    let enough = workload_permissions(stream);
    if has(READ_ALL) || (!enough.is_empty() && enough.iter().all(|role| has(role))) {
        return None;
    }
    Some(match enough {
        [] => READ_ALL.to_owned(),
        some => format!("{READ_ALL} (or {})", some.join(" and ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::microsoft::CONTENT_TYPES;

    #[test]
    fn every_named_record_type_belongs_to_one_stream_and_unknown_ones_to_general() {
        let mut all = Vec::new();
        for stream in CONTENT_TYPES {
            for record_type in filter(stream) {
                assert!(belongs(stream, Some(record_type)));
                assert!(
                    !belongs("Audit.General", Some(record_type)),
                    "{record_type}"
                );
                all.push(*record_type);
            }
        }
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        for other in [
            Some("copilotInteraction"),
            Some("unknownFutureValue"),
            Some(""),
            None,
        ] {
            assert!(belongs("Audit.General", other), "{other:?}");
        }
        assert!(!belongs("Audit.General", Some("ExchangeAdmin")));
    }

    #[test]
    fn only_permissions_for_all_of_a_streams_records_suffice() {
        let missing = |stream: &str, roles: &[&str]| {
            let roles: Vec<String> = roles.iter().map(|role| (*role).to_owned()).collect();
            missing_permission(stream, &roles)
        };
        for stream in CONTENT_TYPES {
            assert_eq!(missing(stream, &[READ_ALL]), None);
            assert!(missing(stream, &[]).unwrap().contains(READ_ALL));
            assert!(missing(stream, &["AuditLogsQuery-CRM.Read.All"]).is_some());
        }
        let sharepoint = "AuditLogsQuery-SharePoint.Read.All";
        let onedrive = "AuditLogsQuery-OneDrive.Read.All";
        assert!(missing("Audit.SharePoint", &[sharepoint]).is_some());
        assert_eq!(missing("Audit.SharePoint", &[sharepoint, onedrive]), None);
        assert!(missing("Audit.General", &[sharepoint, onedrive]).is_some());
        assert_eq!(
            missing("Audit.Exchange", &["AuditLogsQuery-Exchange.Read.All"]),
            None
        );
    }
}
