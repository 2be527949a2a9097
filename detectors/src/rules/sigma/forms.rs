//! In which form of a log a stock rule thinks, and what its field names are called here.

use exfilwatch_model::field;
use rsigma_parser::LogSource;

/// A form of one of the two logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Office 365's own records, or Defender for Cloud Apps' view of them.
    Office365,
    /// Alerts of Defender for Cloud Apps and Purview, by name.
    Alerts,
    /// Entra's own audit log, of which a part reaches the unified audit log.
    Entra,
    /// Google's audit logs as Cloud Logging exports them.
    CloudLogging,
    /// Activities of Google's Reports API.
    Google,
}

/// What a field of a stock rule is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    /// Another field.
    Is(String),
    /// The operation, spelt as this log does.
    Operation,
    /// Success or failure.
    Result,
    /// The service, in Cloud Logging's spelling.
    Service,
    /// It follows from the operation, if that is named.
    Implied,
    /// The name of a changed property; its values stand in another item of the same selection.
    Property,
    /// No record of this log has it.
    Unknown,
}

impl Form {
    /// The form of a log source; `None` where it is none of ours.
    pub(super) fn of(source: &LogSource) -> Option<Self> {
        let service = source.service.as_deref().unwrap_or_default();
        match source.product.as_deref()? {
            "m365" if matches!(service, "threat_management" | "threat_detection") => {
                Some(Self::Alerts)
            }
            "m365" => Some(Self::Office365),
            "azure" if service == "auditlogs" => Some(Self::Entra),
            "google_workspace" => Some(Self::Google),
            "gcp" if service.starts_with("google_workspace") => Some(Self::CloudLogging),
            _ => None,
        }
    }

    /// What a field is here.
    pub(super) fn name(self, name: &str) -> Name {
        let known = match self {
            Self::Office365 => office(name).or(match name {
                "eventName" => Some(Name::Operation),
                _ => None,
            }),
            Self::Alerts => office(name).or(match name {
                "eventName" => Some(Name::Is(field::ALERT_NAME.to_owned())),
                "Payload" => Some(Name::Is("raw".to_owned())),
                _ => None,
            }),
            Self::Entra => return entra(name),
            Self::CloudLogging => return cloud_logging(name),
            Self::Google => None,
        };
        known.unwrap_or_else(|| Name::Is(name.to_owned()))
    }
}

/// Names in rules over Office 365. Its own members keep theirs.
fn office(name: &str) -> Option<Name> {
    let is = |name: &str| Some(Name::Is(name.to_owned()));
    match name {
        "Operation" => Some(Name::Operation),
        "eventSource" => is(field::SERVICE),
        "status" => Some(Name::Result),
        "Parameters" | "OperationProperties" | "ModifiedProperties" | "ExtendedProperties" => {
            Some(Name::Is(format!("{name}.*")))
        }
        _ => None,
    }
}

fn entra(name: &str) -> Name {
    let is = |name: &str| Name::Is(name.to_owned());
    match name.to_lowercase().as_str() {
        "operationname" | "activitydisplayname" | "activitytype" | "properties.message" => {
            Name::Operation
        }
        "properties.result" | "result" | "status" => Name::Result,
        "category" | "loggedbyservice" => Name::Implied,
        "targetresources.modifiedproperties.displayname" => Name::Property,
        "targetresources"
        | "properties.targetresources"
        | "targetresources.modifiedproperties"
        | "targetresources.modifiedproperties.newvalue" => is("ModifiedProperties.*"),
        "targetresources.type" => is("Target.ID"),
        "consentcontext.isadminconsent" => {
            is("ModifiedProperties.ConsentContext.IsAdminConsent.NewValue")
        }
        "additionaldetails.additionalinfo" => is("ExtendedProperties.additionalDetails"),
        "initiatedby.user.userprincipalname" => is(field::ACTOR),
        "initiatedby.user.ipaddress" => is(field::SOURCE_IP),
        _ => Name::Unknown,
    }
}

fn cloud_logging(name: &str) -> Name {
    let is = |name: &str| Name::Is(name.to_owned());
    match name.to_lowercase().as_str() {
        "eventname" | "protopayload.metadata.event.eventname" | "protopayload.methodname" => {
            Name::Operation
        }
        "eventservice" | "protopayload.servicename" => Name::Service,
        "protopayload.authenticationinfo.principalemail" => is(field::ACTOR),
        "protopayload.requestmetadata.callerip" => is(field::SOURCE_IP),
        lower => match lower.strip_prefix("protopayload.metadata.event.parameter.") {
            Some(parameter) => Name::Is(format!("parameters.{parameter}")),
            None if lower.contains('.') => Name::Unknown,
            None => Name::Is(format!("parameters.{name}")),
        },
    }
}

/// Cloud Logging's name of a service, as the Reports API calls the application.
pub(super) fn application(service: &str) -> Option<&'static [&'static str]> {
    match service.to_lowercase().as_str() {
        "admin.googleapis.com" => Some(&["admin"]),
        // The same events come as one application or the other.
        "login.googleapis.com" => Some(&["login", "user_accounts"]),
        "oauth2.googleapis.com" => Some(&["token"]),
        "drive.googleapis.com" => Some(&["drive"]),
        "cloudidentity.googleapis.com" => Some(&["groups", "groups_enterprise"]),
        _ => None,
    }
}

/// What a key of a stock correlation is here.
pub(super) fn key(name: &str) -> String {
    let ours = match name.to_lowercase().as_str() {
        "userid"
        | "user"
        | "username"
        | "initiatedby.user.userprincipalname"
        | "protopayload.authenticationinfo.principalemail"
        | "actor.email" => field::ACTOR,
        "clientip" | "src_ip" | "ipaddress" | "protopayload.requestmetadata.callerip" => {
            field::SOURCE_IP
        }
        "operation" | "eventname" | "operationname" | "properties.message" => field::OPERATION,
        _ => return name.to_owned(),
    };
    ours.to_owned()
}
