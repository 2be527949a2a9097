//! Names of the ATT&CK tactics and techniques that rules about cloud audit logs bear (ATT&CK 17.1).
//!
//! A technique that is not listed goes out with its id alone; the OCSF schema allows that.

/// The release of ATT&CK the names are from.
pub(crate) const VERSION: &str = "17.1";

const TACTICS: &[(&str, &str)] = &[
    ("TA0001", "Initial Access"),
    ("TA0002", "Execution"),
    ("TA0003", "Persistence"),
    ("TA0004", "Privilege Escalation"),
    ("TA0005", "Defense Evasion"),
    ("TA0006", "Credential Access"),
    ("TA0007", "Discovery"),
    ("TA0008", "Lateral Movement"),
    ("TA0009", "Collection"),
    ("TA0010", "Exfiltration"),
    ("TA0011", "Command and Control"),
    ("TA0040", "Impact"),
    ("TA0042", "Resource Development"),
    ("TA0043", "Reconnaissance"),
];

const TECHNIQUES: &[(&str, &str)] = &[
    ("T1020", "Automated Exfiltration"),
    ("T1030", "Data Transfer Size Limits"),
    ("T1039", "Data from Network Shared Drive"),
    ("T1041", "Exfiltration Over C2 Channel"),
    ("T1048", "Exfiltration Over Alternative Protocol"),
    ("T1048.003", "Exfiltration Over Unencrypted Non-C2 Protocol"),
    ("T1059", "Command and Scripting Interpreter"),
    ("T1059.001", "PowerShell"),
    ("T1070", "Indicator Removal"),
    ("T1070.004", "File Deletion"),
    ("T1070.008", "Clear Mailbox Data"),
    ("T1074", "Data Staged"),
    ("T1074.002", "Remote Data Staging"),
    ("T1078", "Valid Accounts"),
    ("T1078.004", "Cloud Accounts"),
    ("T1080", "Taint Shared Content"),
    ("T1087", "Account Discovery"),
    ("T1087.004", "Cloud Account"),
    ("T1098", "Account Manipulation"),
    ("T1098.001", "Additional Cloud Credentials"),
    ("T1098.002", "Additional Email Delegate Permissions"),
    ("T1098.003", "Additional Cloud Roles"),
    ("T1098.005", "Device Registration"),
    ("T1105", "Ingress Tool Transfer"),
    ("T1110", "Brute Force"),
    ("T1110.001", "Password Guessing"),
    ("T1110.003", "Password Spraying"),
    ("T1110.004", "Credential Stuffing"),
    ("T1114", "Email Collection"),
    ("T1114.001", "Local Email Collection"),
    ("T1114.002", "Remote Email Collection"),
    ("T1114.003", "Email Forwarding Rule"),
    ("T1119", "Automated Collection"),
    ("T1136", "Create Account"),
    ("T1136.003", "Cloud Account"),
    ("T1137", "Office Application Startup"),
    ("T1137.005", "Outlook Rules"),
    ("T1199", "Trusted Relationship"),
    ("T1204", "User Execution"),
    ("T1204.001", "Malicious Link"),
    ("T1204.002", "Malicious File"),
    ("T1213", "Data from Information Repositories"),
    ("T1213.002", "Sharepoint"),
    ("T1398", "Boot or Logon Initialization Scripts"),
    ("T1461", "Lockscreen Bypass"),
    ("T1474", "Supply Chain Compromise"),
    ("T1484", "Domain or Tenant Policy Modification"),
    ("T1484.002", "Trust Modification"),
    ("T1485", "Data Destruction"),
    ("T1490", "Inhibit System Recovery"),
    ("T1528", "Steal Application Access Token"),
    ("T1530", "Data from Cloud Storage"),
    ("T1531", "Account Access Removal"),
    ("T1534", "Internal Spearphishing"),
    ("T1537", "Transfer Data to Cloud Account"),
    ("T1539", "Steal Web Session Cookie"),
    ("T1550", "Use Alternate Authentication Material"),
    ("T1550.001", "Application Access Token"),
    ("T1550.004", "Web Session Cookie"),
    ("T1552", "Unsecured Credentials"),
    ("T1552.004", "Private Keys"),
    ("T1556", "Modify Authentication Process"),
    ("T1556.006", "Multi-Factor Authentication"),
    ("T1557", "Adversary-in-the-Middle"),
    ("T1560", "Archive Collected Data"),
    ("T1562", "Impair Defenses"),
    ("T1562.001", "Disable or Modify Tools"),
    ("T1562.007", "Disable or Modify Cloud Firewall"),
    ("T1562.008", "Disable or Modify Cloud Logs"),
    ("T1564", "Hide Artifacts"),
    ("T1564.008", "Email Hiding Rules"),
    ("T1566", "Phishing"),
    ("T1566.001", "Spearphishing Attachment"),
    ("T1566.002", "Spearphishing Link"),
    ("T1566.003", "Spearphishing via Service"),
    ("T1567", "Exfiltration Over Web Service"),
    ("T1567.002", "Exfiltration to Cloud Storage"),
    ("T1567.004", "Exfiltration Over Webhook"),
    ("T1583", "Acquire Infrastructure"),
    ("T1583.001", "Domains"),
    ("T1589", "Gather Victim Identity Information"),
    ("T1621", "Multi-Factor Authentication Request Generation"),
    ("T1649", "Steal or Forge Authentication Certificates"),
    ("T1656", "Impersonation"),
    ("T1667", "Email Bombing"),
];

fn name(table: &[(&str, &'static str)], id: &str) -> Option<&'static str> {
    table
        .binary_search_by(|(known, _)| (*known).cmp(id))
        .ok()
        .and_then(|at| table.get(at))
        .map(|(_, name)| *name)
}

/// The name of a tactic (`TA0010`).
pub(crate) fn tactic(id: &str) -> Option<&'static str> {
    name(TACTICS, id)
}

/// The name of a technique (`T1567`) or sub-technique (`T1567.002`).
pub(crate) fn technique(id: &str) -> Option<&'static str> {
    name(TECHNIQUES, id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_id_is_found_by_its_search() {
        for (id, name) in TACTICS {
            assert_eq!(tactic(id), Some(*name), "{id}");
        }
        for (id, name) in TECHNIQUES {
            assert_eq!(technique(id), Some(*name), "{id}");
            let parent = id.split('.').next().unwrap();
            assert!(technique(parent).is_some(), "parent of {id}");
        }
        assert_eq!(technique("T9999"), None);
    }
}
