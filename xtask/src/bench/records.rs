//! The file that is measured: native Office 365 records of a made-up tenant, in the operation mix
//! and sizes of a real Unified Audit Log (most are cmdlets of the Exchange service itself), with an
//! attack every [`SET`] records. The same count gives the same bytes.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use chrono::{DateTime, TimeDelta, Utc};

/// Goes up when the content changes, so that an old file is not reused.
const VERSION: u32 = 2;
/// Records from one planted attack to the next.
pub(crate) const SET: usize = 20_000;
/// Documents shared with one address in each attack.
const SHARES: u32 = 25;
/// The domain of the tenant.
pub(crate) const DOMAIN: &str = "bench.example";
/// What each attack must be found as, at least.
pub(crate) const DETECTIONS: [&str; 3] = [
    "o365.mail.forwarding_external",
    "o365.ediscovery.export_alert",
    "o365.sharepoint.mass_share_external",
];

const ORGANISATION: &str = "5d1f3c6e-1a60-4f0a-9c55-0d2a7be0c001";
const SERVICE: &str = r"NT AUTHORITY\\SYSTEM (Microsoft.Exchange.ServiceHost)";
const HOSTED: &str =
    "EURPRD00A000.PROD.OUTLOOK.COM/Microsoft Exchange Hosted Organizations/bench.example";
const BROWSER: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36";

/// Writes the file unless it is there; its path.
pub(crate) fn file(folder: &Path, count: usize) -> Result<PathBuf> {
    let path = folder.join(format!("office365-{count}-v{VERSION}.ndjson"));
    if path.exists() {
        return Ok(path);
    }
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let unfinished = path.with_extension("unfinished");
    let mut writer = BufWriter::new(File::create(&unfinished)?);
    write(&mut writer, count)?;
    writer.into_inner()?.sync_all()?;
    std::fs::rename(&unfinished, &path)?;
    Ok(path)
}

fn write(writer: &mut impl Write, count: usize) -> Result<()> {
    let mut maker = Maker {
        random: Random(0x5eed),
        count,
        written: 0,
    };
    while maker.written < count {
        if maker.written % SET == SET / 2 {
            maker.attack(writer)?;
        } else {
            let record = maker.daily_life();
            maker.put(writer, &record)?;
        }
    }
    Ok(())
}

/// splitmix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn guid(&mut self) -> uuid::Uuid {
        let bits = (u128::from(self.next()) << 64) | u128::from(self.next());
        uuid::Builder::from_u128(bits).into_uuid()
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        let index = usize::try_from(self.below(from.len() as u64)).unwrap_or_default();
        from.get(index).copied().unwrap_or_default()
    }
}

struct Maker {
    random: Random,
    count: usize,
    written: usize,
}

impl Maker {
    fn put(&mut self, writer: &mut impl Write, record: &str) -> Result<()> {
        if self.written < self.count {
            writeln!(writer, "{record}")?;
            self.written += 1;
        }
        Ok(())
    }

    /// Thirty days over the whole file.
    fn time(&self) -> DateTime<Utc> {
        let share = self.written as f64 / self.count.max(1) as f64;
        let passed = Duration::from_hours(30 * 24).mul_f64(share);
        DateTime::UNIX_EPOCH
            + TimeDelta::days(20_500)
            + TimeDelta::from_std(passed).unwrap_or_default()
    }

    fn head(&mut self, time: DateTime<Utc>, operation: &str, record_type: u32) -> String {
        format!(
            r#"{{"CreationTime":"{}","Id":"{}","Operation":"{operation}","OrganizationId":"{ORGANISATION}","RecordType":{record_type},"#,
            time.format("%Y-%m-%dT%H:%M:%S"),
            self.random.guid(),
        )
    }

    fn user(&mut self) -> String {
        format!("user{:03}@{DOMAIN}", self.random.below(400))
    }

    fn address(&mut self) -> String {
        format!(
            "198.51.{}.{}",
            self.random.below(100),
            self.random.below(250)
        )
    }

    /// One record of an ordinary day, by the counts of a real log.
    fn daily_life(&mut self) -> String {
        match self.random.below(1_930) {
            0..502 => self.set_mailbox(),
            502..907 => self.set_mailbox_plan(),
            907..1_168 => self.service_cmdlet(),
            1_168..1_333 => self.login("UserLoggedIn", "Success"),
            1_333..1_429 => self.login("UserLoginFailed", "Failed"),
            1_429..1_551 => self.mail_items_accessed(),
            1_551..1_571 => self.send(),
            1_571..1_751 => self.directory(),
            1_751..1_870 => self.document(),
            _ => self.compliance(),
        }
    }

    fn cmdlet(&mut self, operation: &str, object: &str, parameters: &str) -> String {
        let head = self.head(self.time(), operation, 1);
        let server = self.random.below(9_000);
        format!(
            r#"{head}"ResultStatus":"True","UserKey":"{SERVICE}","UserType":3,"Version":1,"Workload":"Exchange","ObjectId":"{object}","UserId":"{SERVICE}","AppId":"","ClientAppId":"","ExternalAccess":true,"OrganizationName":"{DOMAIN}","OriginatingServer":"AM0PR00MB{server:04} (15.20.7784.018)","Parameters":[{parameters}]}}"#
        )
    }

    fn set_mailbox(&mut self) -> String {
        let object = format!("{HOSTED}/SystemMailbox{{{}}}", self.random.guid());
        let switches = [
            "Force",
            "UMGrammar",
            "Arbitration",
            "MailRouting",
            "MessageTracking",
            "OMEncryption",
            "OABGen",
            "ClientExtensions",
            "GMGen",
            "SuiteServiceStorage",
            "Management",
        ];
        let parameters = switches.map(|name| parameter(name, "True")).join(",");
        let identity = parameter("Identity", &object);
        let size = parameter("MaxSendSize", "1 GB (1,073,741,824 bytes)");
        let quiet = parameter("WarningAction", "SilentlyContinue");
        self.cmdlet(
            "Set-Mailbox",
            &object,
            &format!("{parameters},{size},{quiet},{identity}"),
        )
    }

    fn set_mailbox_plan(&mut self) -> String {
        let object = format!("{HOSTED}/ExchangeOnlineEnterprise-{}", self.random.guid());
        let parameters = [
            parameter("Identity", &object),
            parameter("ProhibitSendReceiveQuota", "100 GB (107,374,182,400 bytes)"),
            parameter("RetainDeletedItemsFor", "14.00:00:00"),
            parameter("Force", "True"),
            parameter("WarningAction", "SilentlyContinue"),
            parameter("ErrorAction", "Stop"),
        ];
        self.cmdlet("Set-MailboxPlan", &object, &parameters.join(","))
    }

    fn service_cmdlet(&mut self) -> String {
        let operation = self.random.pick(&[
            "Set-TransportConfig",
            "Set-User",
            "Add-MailboxPermission",
            "New-ExchangeAssistanceConfig",
            "Set-RecipientEnforcementProvisioningPolicy",
            "Enable-AddressListPaging",
            "Set-OwaMailboxPolicy",
            "Install-DefaultSharingPolicy",
            "Install-AdminAuditLogConfig",
            "Set-TenantObjectVersion",
        ]);
        let object = format!("{HOSTED}/Configuration {}", self.random.below(1_000));
        let parameters = [
            parameter("Identity", DOMAIN),
            parameter("ErrorAction", "Stop"),
        ];
        self.cmdlet(operation, &object, &parameters.join(","))
    }

    fn login(&mut self, operation: &str, result: &str) -> String {
        let head = self.head(self.time(), operation, 15);
        let (user, address, key) = (self.user(), self.address(), self.random.guid());
        let (between, within) = (self.random.guid(), self.random.guid());
        format!(
            r#"{head}"ResultStatus":"{result}","UserKey":"{key}","UserType":0,"Version":1,"Workload":"AzureActiveDirectory","ClientIP":"{address}","ObjectId":"00000003-0000-0000-c000-000000000000","UserId":"{user}","AzureActiveDirectoryEventType":1,"ExtendedProperties":[{{"Name":"ResultStatusDetail","Value":"{result}"}},{{"Name":"UserAgent","Value":"{BROWSER}"}},{{"Name":"RequestType","Value":"OAuth2:Authorize"}}],"ModifiedProperties":[],"Actor":[{{"ID":"{key}","Type":0}},{{"ID":"{user}","Type":5}}],"ActorContextId":"{ORGANISATION}","ActorIpAddress":"{address}","InterSystemsId":"{between}","IntraSystemId":"{within}","SupportTicketId":"","Target":[{{"ID":"00000003-0000-0000-c000-000000000000","Type":0}}],"TargetContextId":"{ORGANISATION}","ApplicationId":"00000006-0000-0ff1-ce00-000000000000","ErrorNumber":"0"}}"#
        )
    }

    fn mail_items_accessed(&mut self) -> String {
        let head = self.head(self.time(), "MailItemsAccessed", 50);
        let (user, key, mailbox) = (self.user(), self.random.next(), self.random.guid());
        let (message, folder) = (self.random.guid(), self.random.next());
        format!(
            r#"{head}"ResultStatus":"Succeeded","UserKey":"{key:016X}","UserType":0,"Version":1,"Workload":"Exchange","UserId":"{user}","AppId":"27922004-5251-4030-b22d-91ecd9a37ea4","ClientAppId":"27922004-5251-4030-b22d-91ecd9a37ea4","ClientIPAddress":"2001:db8:803:14::90","ClientInfoString":"Client=REST;Client=RESTSystem;;","ExternalAccess":false,"InternalLogonType":0,"LogonType":0,"LogonUserSid":"S-1-5-21-1111111111-2222222222-3333333333-44444444","MailboxGuid":"{mailbox}","MailboxOwnerSid":"S-1-5-21-1111111111-2222222222-3333333333-44444444","MailboxOwnerUPN":"{user}","OperationProperties":[{{"Name":"MailAccessType","Value":"Bind"}},{{"Name":"IsThrottled","Value":"False"}}],"OrganizationName":"{DOMAIN}","OriginatingServer":"AM0PR00MB0001 (15.20.7784.018)\r\n","Folders":[{{"FolderItems":[{{"InternetMessageId":"<{message}@AM0PR00MB0001.eurprd00.prod.outlook.com>"}}],"Id":"LgAAAAB{folder:016X}AQDYHcVxAAAAAAEMAAAB","Path":"\\Inbox"}}],"OperationCount":1}}"#
        )
    }

    fn send(&mut self) -> String {
        let head = self.head(self.time(), "Send", 2);
        let (user, mailbox, message) = (self.user(), self.random.guid(), self.random.guid());
        format!(
            r#"{head}"ResultStatus":"Succeeded","UserKey":"10032001AAAA0000","UserType":0,"Version":1,"Workload":"Exchange","ClientIP":"2001:db8:803:14::90","UserId":"{user}","ClientInfoString":"Client=OWA;{BROWSER};","ExternalAccess":false,"InternalLogonType":0,"LogonType":0,"LogonUserSid":"S-1-5-21-1111111111-2222222222-3333333333-44444444","MailboxGuid":"{mailbox}","MailboxOwnerUPN":"{user}","OrganizationName":"{DOMAIN}","OriginatingServer":"AM0PR00MB0001 (15.20.7784.018)\r\n","Item":{{"Attachments":"plan.xlsx (18324b)","Id":"Unknown","InternetMessageId":"<{message}@AM0PR00MB0001.eurprd00.prod.outlook.com>","ParentFolder":{{"Id":"LgAAAABpAQDYHcVxAAAAAAEPAAAB","Path":"\\Drafts"}},"SizeInBytes":42110,"Subject":"Plan for the week"}}}}"#
        )
    }

    fn directory(&mut self) -> String {
        let operation = self.random.pick(&[
            "Add member to role.",
            "Add service principal.",
            "Update service principal.",
            "Update application.",
            "Add application.",
            "Update user.",
        ]);
        let head = self.head(self.time(), operation, 8);
        let (target, key) = (self.random.guid(), self.random.guid());
        let names = format!(
            "{target}/sync-int.service.example;{target}/sync-ppe.service.example;{target}/sync.service.example;{target};https://sync.service.example;https://sync.service.example/us"
        );
        format!(
            r#"{head}"ResultStatus":"Success","UserKey":"Not Available","UserType":4,"Version":1,"Workload":"AzureActiveDirectory","ClientIP":"","ObjectId":"{names}","UserId":"ServicePrincipal_{key}","AzureActiveDirectoryEventType":1,"ExtendedProperties":[{{"Name":"additionalDetails","Value":"{{\"User-Agent\":\"Provisioning\/1.0\"}}"}},{{"Name":"extendedAuditEventCategory","Value":"ServicePrincipal"}}],"ModifiedProperties":[{{"Name":"AccountEnabled","NewValue":"[\r\n  true\r\n]","OldValue":"[]"}},{{"Name":"AppPrincipalId","NewValue":"[\r\n  \"{target}\"\r\n]","OldValue":"[]"}},{{"Name":"DisplayName","NewValue":"[\r\n  \"Provisioning\"\r\n]","OldValue":"[]"}},{{"Name":"ServicePrincipalName","NewValue":"[\r\n  \"{names}\"\r\n]","OldValue":"[]"}},{{"Name":"Included Updated Properties","NewValue":"AccountEnabled, AppPrincipalId, DisplayName, ServicePrincipalName","OldValue":""}}],"Actor":[{{"ID":"Provisioning","Type":1}},{{"ID":"{key}","Type":2}},{{"ID":"Other","Type":2}}],"ActorContextId":"{ORGANISATION}","ActorIpAddress":"","InterSystemsId":"{key}","IntraSystemId":"{target}","SupportTicketId":"","Target":[{{"ID":"ServicePrincipal_{target}","Type":2}},{{"ID":"{target}","Type":2}},{{"ID":"ServicePrincipal","Type":2}},{{"ID":"{names}","Type":4}}],"TargetContextId":"{ORGANISATION}"}}"#
        )
    }

    fn document(&mut self) -> String {
        let (operation, record_type) = match self.random.below(4) {
            0 => ("FolderModified", 6),
            1 => ("FileAccessed", 6),
            2 => ("PageViewed", 4),
            _ => ("ListUpdated", 36),
        };
        let user = self.user();
        let number = self.random.below(9_000);
        self.document_record(self.time(), operation, record_type, &user, number, "")
    }

    fn document_record(
        &mut self,
        time: DateTime<Utc>,
        operation: &str,
        record_type: u32,
        user: &str,
        number: u64,
        more: &str,
    ) -> String {
        let head = self.head(time, operation, record_type);
        let address = self.address();
        let (list, item, correlation) =
            (self.random.guid(), self.random.guid(), self.random.guid());
        let site = "https://bench-my.sharepoint.com/personal/user_bench_example";
        format!(
            r#"{head}"UserKey":"i:0h.f|membership|10032001aaaa0000@live.com","UserType":0,"Version":1,"Workload":"OneDrive","ClientIP":"{address}","ObjectId":"{site}/Documents/Report {number}.docx","UserId":"{user}","ApplicationId":"4345a7b9-9a63-4910-a426-35363201d503","CorrelationId":"{correlation}","EventSource":"SharePoint","ItemType":"File","ListId":"{list}","ListItemUniqueId":"{item}","Site":"{list}","UserAgent":"{BROWSER}","WebId":"{correlation}",{more}"SourceFileExtension":"docx","SiteUrl":"{site}","SourceFileName":"Report {number}.docx","SourceRelativeUrl":"Documents/Report {number}.docx"}}"#
        )
    }

    fn compliance(&mut self) -> String {
        let operation = self
            .random
            .pick(&["SearchMtpStatus", "SearchDataInsightsSubscription"]);
        let head = self.head(self.time(), operation, 52);
        let search = self.random.guid();
        format!(
            r#"{head}"UserKey":"NOT-FOUND","UserType":5,"Version":1,"Workload":"SecurityComplianceCenter","UserId":"NOT-FOUND","AadAppId":"{search}","DataType":"MtpStatus","DatabaseType":"DataInsights","RelativeUrl":"/DataInsights/DataInsightsService.svc/Find/MtpStatus?tenantid={ORGANISATION}","ResultCount":"1"}}"#
        )
    }

    /// One attack: documents to one outsider, mail forwarded outside, an export.
    fn attack(&mut self, writer: &mut impl Write) -> Result<()> {
        let (user, begun) = (self.user(), self.time());
        let outsider = format!("collector{}", self.written / SET);
        for number in 0..SHARES {
            let time = begun + TimeDelta::minutes(number.into());
            let more = format!(
                r#""EventData":"<Permissions granted>Read</Permissions granted>","TargetUserOrGroupType":"Guest","TargetUserOrGroupName":"{outsider}_gmail.com#ext#@{DOMAIN}","#
            );
            let record = self.document_record(time, "SharingSet", 14, &user, number.into(), &more);
            self.put(writer, &record)?;
        }
        let forwarding = self.forwarding(begun, &user, &outsider);
        self.put(writer, &forwarding)?;
        let export = self.export_alert(begun, &user);
        self.put(writer, &export)
    }

    fn forwarding(&mut self, time: DateTime<Utc>, user: &str, outsider: &str) -> String {
        let head = self.head(time, "Set-Mailbox", 1);
        let address = self.address();
        let parameters = [
            parameter("Identity", user),
            parameter(
                "ForwardingSmtpAddress",
                &format!("smtp:{outsider}@gmail.com"),
            ),
            parameter("DeliverToMailboxAndForward", "True"),
        ]
        .join(",");
        format!(
            r#"{head}"ResultStatus":"True","UserKey":"{user}","UserType":2,"Version":1,"Workload":"Exchange","ClientIP":"{address}:50123","ObjectId":"{HOSTED}/{user}","UserId":"{user}","AppId":"00000002-0000-0ff1-ce00-000000000000","ClientAppId":"","ExternalAccess":false,"OrganizationName":"{DOMAIN}","OriginatingServer":"AM0PR00MB0001 (15.20.7784.018)","Parameters":[{parameters}],"SessionId":"637a72b7-3f4e-445b-bb2e-4605eb2a141b"}}"#
        )
    }

    fn export_alert(&mut self, time: DateTime<Utc>, user: &str) -> String {
        let head = self.head(time, "AlertTriggered", 40);
        let (alert, policy, cause) = (self.random.guid(), self.random.guid(), self.random.guid());
        format!(
            r#"{head}"ResultStatus":"Succeeded","UserKey":"SecurityComplianceAlerts","UserType":4,"Version":1,"Workload":"SecurityComplianceCenter","ObjectId":"{cause}","UserId":"SecurityComplianceAlerts","AlertEntityId":"{user}","AlertId":"{alert}","AlertLinks":[],"AlertType":"System","Category":"ThreatManagement","Comments":"New alert","Data":"{{\"etype\":\"User\",\"eid\":\"{user}\",\"op\":\"SearchExported\",\"f3u\":\"{user}\",\"an\":\"eDiscovery search started or exported\",\"sev\":\"Medium\",\"reid\":\"{cause}\"}}","EntityType":"User","Name":"eDiscovery search started or exported","PolicyId":"{policy}","Severity":"Medium","Source":"Office 365 Security & Compliance","Status":"Active"}}"#
        )
    }
}

fn parameter(name: &str, value: &str) -> String {
    format!(r#"{{"Name":"{name}","Value":"{value}"}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_valid_and_of_the_size_and_mix_of_a_real_log() {
        let (mut text, mut again) = (Vec::new(), Vec::new());
        write(&mut text, SET).unwrap();
        write(&mut again, SET).unwrap();
        assert_eq!(text, again, "the same count gives the same bytes");

        let records: Vec<serde_json::Value> = text
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect();
        assert_eq!(records.len(), SET);
        let mean = text.len() / SET;
        assert!((1_200..1_400).contains(&mean), "{mean} bytes a record");

        let share = |operation: &str| {
            let of = records
                .iter()
                .filter(|record| record["Operation"] == operation)
                .count();
            100 * of / SET
        };
        assert!(
            (24..29).contains(&share("Set-Mailbox")),
            "{}",
            share("Set-Mailbox")
        );
        assert!((18..24).contains(&share("Set-MailboxPlan")));
        let planted = |operation: &str| {
            records
                .iter()
                .filter(|r| r["Operation"] == operation)
                .count()
        };
        assert_eq!(
            (planted("SharingSet"), planted("AlertTriggered")),
            (SHARES as usize, 1)
        );
        let ids: std::collections::BTreeSet<_> = records
            .iter()
            .map(|record| record["Id"].as_str().unwrap())
            .collect();
        assert_eq!(ids.len(), SET);
    }

    #[test]
    fn a_file_that_is_there_is_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path(), 10).unwrap();
        std::fs::write(&path, "kept").unwrap();
        assert_eq!(
            std::fs::read_to_string(file(folder.path(), 10).unwrap()).unwrap(),
            "kept"
        );
    }
}
