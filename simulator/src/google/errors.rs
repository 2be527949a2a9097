//! Error replies of Google's APIs, and of its token endpoint, which words them otherwise.

use axum::response::Response;
use serde_json::json;

use crate::reply;

/// `{"error":{code, message, errors:[…], status}}`.
pub(super) fn api(
    status: u16,
    (domain, reason, name): (&str, &str, &str),
    message: &str,
) -> Response {
    let body = json!({ "error": {
        "code": status,
        "message": message,
        "errors": [{ "message": message, "domain": domain, "reason": reason }],
        "status": name,
    }});
    reply::json(status, body.to_string())
}

/// 400, a parameter is wrong.
pub(super) fn invalid(message: &str) -> Response {
    api(400, ("global", "invalid", "INVALID_ARGUMENT"), message)
}

/// 401, the token is unknown or dead.
pub(super) fn stale_token() -> Response {
    let message = "Request had invalid authentication credentials. Expected OAuth 2 access token, \
                   login cookie or other valid authentication credential.";
    api(401, ("global", "authError", "UNAUTHENTICATED"), message)
}

/// 401, the subject may not read the logs: the token itself is good.
pub(super) fn not_authorized() -> Response {
    let message = "Access denied. You are not authorized to read activity records.";
    api(401, ("global", "authError", "UNAUTHENTICATED"), message)
}

/// 403, the token lacks the scope.
pub(super) fn insufficient_scope() -> Response {
    let message = "Request had insufficient authentication scopes.";
    api(
        403,
        ("global", "insufficientPermissions", "PERMISSION_DENIED"),
        message,
    )
}

/// 403, the API was not switched on in the project; both shapes name it.
pub(super) fn service_disabled(api: &str, project: &str) -> Response {
    let message = format!(
        "{api} has not been used in project {project} before or it is disabled. Enable it by \
         visiting https://console.developers.google.com/apis/api/overview?project={project} then \
         retry. If you enabled this API recently, wait a few minutes for the action to propagate \
         to our systems and retry."
    );
    let body = json!({ "error": {
        "code": 403,
        "message": message,
        "errors": [{ "message": message, "domain": "usageLimits", "reason": "accessNotConfigured" }],
        "status": "PERMISSION_DENIED",
        "details": [{
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "SERVICE_DISABLED",
            "domain": "googleapis.com",
        }],
    }});
    reply::json(403, body.to_string())
}

/// 403, the quota of the day is used up.
pub(super) fn daily_quota() -> Response {
    let message = "Quota exceeded for quota metric 'Queries' and limit 'Queries per day'";
    api(
        403,
        ("usageLimits", "quotaExceeded", "RESOURCE_EXHAUSTED"),
        message,
    )
}

/// An error of the newer APIs, which have no `errors[]`.
pub(super) fn modern(status: u16, name: &str, reason: Option<&str>, message: &str) -> Response {
    let mut error = json!({ "code": status, "message": message, "status": name });
    if let Some(reason) = reason {
        error["details"] = json!([{
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": reason,
            "domain": "googleapis.com",
        }]);
    }
    reply::json(status, json!({ "error": error }).to_string())
}

/// 403, the caller may not see this resource.
pub(super) fn forbidden() -> Response {
    let message = "Not Authorized to access this resource/api";
    api(403, ("global", "forbidden", "PERMISSION_DENIED"), message)
}

/// The token endpoint's shape.
pub(super) fn token(error: &str, description: &str) -> Response {
    let body = json!({ "error": error, "error_description": description });
    let status = if error == "unauthorized_client" {
        401
    } else {
        400
    };
    reply::json(status, body.to_string())
}
