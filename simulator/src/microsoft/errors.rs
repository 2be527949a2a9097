//! Error replies of the Management Activity API: `AF…` codes in their wrapper, and the odd ones.

use axum::response::Response;
use serde_json::json;

use crate::reply;

/// What can be wrong with a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Problem {
    RoleMissing,
    MissingParameter(&'static str),
    WrongType(String, &'static str),
    TenantMismatch(String),
    TenantUnknown(String),
    TenantMisconfigured(String),
    TenantNotGuid,
    ContentTypeInvalid,
    NoSubscription,
    SubscriptionDisabled,
    AlreadyEnabled,
    WindowTooWide,
    WindowInvalid,
    NextPageInvalid,
    ContentUnknown(String),
    ContentExpired(String),
    ContentIdInvalid(String),
    AuditingOff(String),
    Internal(&'static str),
}

impl Problem {
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn parts(&self) -> (u16, &'static str, String) {
        match self {
            Self::RoleMissing => (
                401,
                "AF10001",
                "The permission set () sent in the request does not include the expected permission \
                 ActivityFeed.Read or ActivityFeed.ReadDlp."
                    .into(),
            ),
            Self::MissingParameter(name) => (400, "AF20001", format!("Missing parameter: {name}.")),
            Self::WrongType(value, expected) => {
                (400, "AF20002", format!("Invalid parameter type: {value}. Expected type: {expected}"))
            }
            Self::TenantMismatch(tenant) => (
                400,
                "AF20010",
                format!(
                    "The tenant ID passed in the URL ({tenant}) does not match the tenant ID passed \
                     in the access token."
                ),
            ),
            Self::TenantUnknown(tenant) => (
                400,
                "AF20011",
                format!("Specified tenant ID ({tenant}) does not exist in the system or has been deleted."),
            ),
            Self::TenantMisconfigured(tenant) => (
                400,
                "AF20012",
                format!("Specified tenant ID ({tenant}) is incorrectly configured in the system."),
            ),
            Self::TenantNotGuid => {
                (400, "AF20013", "The tenant ID passed in the URL is not a valid GUID.".into())
            }
            Self::ContentTypeInvalid => {
                (400, "AF20020", "The specified content type is not valid.".into())
            }
            Self::NoSubscription => (
                400,
                "AF20022",
                "No subscription found for the specified content type.".into(),
            ),
            Self::SubscriptionDisabled => {
                (400, "AF20023", "The subscription was disabled by tenant admin.".into())
            }
            Self::AlreadyEnabled => {
                (400, "AF20024", "The subscription is already enabled. No property change.".into())
            }
            Self::WindowTooWide => (
                400,
                "AF20030",
                "Start time and end time must both be specified (or both omitted) and must be less \
                 than or equal to 24 hours apart, with the start time no more than 7 days in the past."
                    .into(),
            ),
            Self::WindowInvalid => (
                400,
                "AF20055",
                "Start time and end time must both be specified (or both omitted), in a valid format, \
                 start before end, at most 24 hours apart and no more than 7 days in the past."
                    .into(),
            ),
            Self::NextPageInvalid => (400, "AF20031", "Invalid nextPage Input.".into()),
            Self::ContentUnknown(id) => {
                (404, "AF20050", format!("The specified content ({id}) does not exist."))
            }
            Self::ContentExpired(id) => (
                400,
                "AF20051",
                format!(
                    "Content requested with the key {id} has already expired. Content older than 7 \
                     days cannot be retrieved."
                ),
            ),
            Self::ContentIdInvalid(id) => {
                (400, "AF20052", format!("Content ID {id} in the URL is invalid."))
            }
            Self::AuditingOff(tenant) => (
                400,
                "Microsoft.Office.Compliance.Audit.DataServiceException",
                format!("Tenant {tenant} does not exist."),
            ),
            Self::Internal(code) => (
                500,
                code,
                "An internal error occurred. Retry the request.".into(),
            ),
        }
    }

    /// The reply.
    pub(super) fn response(&self) -> Response {
        let (status, code, message) = self.parts();
        let body = json!({ "error": { "code": code, "message": message } });
        reply::json(status, body.to_string())
    }
}

/// The service's own refusal with a code, about nothing in particular; `None` for a code that it
/// does not have. AF429 comes with the words of its throttling.
pub(crate) fn by_code(code: &str) -> Option<Response> {
    let tenant = || "0b3f9ef4-6d0a-4d5b-9d1e-2f1c0a9b8c7d".to_owned();
    let id = || "20260303$20260303$audit_general$emea0036".to_owned();
    let problem = match code {
        "AF10001" => Problem::RoleMissing,
        "AF20001" => Problem::MissingParameter("contentType"),
        "AF20002" => Problem::WrongType("startTime".into(), "DateTime"),
        "AF20010" => Problem::TenantMismatch(tenant()),
        "AF20011" => Problem::TenantUnknown(tenant()),
        "AF20012" => Problem::TenantMisconfigured(tenant()),
        "AF20013" => Problem::TenantNotGuid,
        "AF20020" => Problem::ContentTypeInvalid,
        "AF20022" => Problem::NoSubscription,
        "AF20023" => Problem::SubscriptionDisabled,
        "AF20024" => Problem::AlreadyEnabled,
        "AF20030" => Problem::WindowTooWide,
        "AF20031" => Problem::NextPageInvalid,
        "AF20050" => Problem::ContentUnknown(id()),
        "AF20051" => Problem::ContentExpired(id()),
        "AF20052" => Problem::ContentIdInvalid(id()),
        "AF20055" => Problem::WindowInvalid,
        "AF50000" => Problem::Internal("AF50000"),
        "AF50005" => Problem::Internal("AF50005"),
        "AF50006" => Problem::Internal("AF50006"),
        "DataServiceException" => Problem::AuditingOff(tenant()),
        _ => return None,
    };
    Some(problem.response())
}

/// 401 as the gateway before the service words it: another shape than the service's own errors.
pub(super) fn unauthorized() -> Response {
    reply::json(
        401,
        r#"{"Message":"Authorization has been denied for this request."}"#,
    )
}
