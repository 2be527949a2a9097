//! The issuer and subject of a certificate, in words. Only for telling a person who stands in
//! between: nothing is decided by what is read here.

use exfilwatch_emitters::{Certificate, element};

/// Longest name shown, in characters.
const NAME_CHARACTERS_MAX: usize = 120;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
/// Attribute types shown (2.5.4.…), in this order.
const SHOWN: [([u8; 3], &str); 3] = [
    ([0x55, 4, 3], "CN"),
    ([0x55, 4, 11], "OU"),
    ([0x55, 4, 10], "O"),
];

/// Who signed the certificate (DER): `CN=Corp Inspection CA, O=Corp`.
pub(super) fn issuer(certificate: &[u8]) -> Option<String> {
    Some(words(Certificate::read(certificate)?.issuer))
}

/// A Name: a sequence of sets of (type, value).
fn words(mut name: &[u8]) -> String {
    let mut found: Vec<([u8; 3], String)> = Vec::new();
    while let Some((SET, set, rest)) = element(name) {
        name = rest;
        let Some((SEQUENCE, attribute, _)) = element(set) else {
            continue;
        };
        let Some((OBJECT_IDENTIFIER, identifier, value)) = element(attribute) else {
            continue;
        };
        if let (Ok(identifier), Some((_, text, _))) =
            (<[u8; 3]>::try_from(identifier), element(value))
        {
            let text: String = String::from_utf8_lossy(text)
                .chars()
                .filter(|c| !c.is_control())
                .take(NAME_CHARACTERS_MAX)
                .collect();
            found.push((identifier, text));
        }
    }
    let parts: Vec<String> = SHOWN
        .iter()
        .flat_map(|(wanted, short)| {
            let of_type = found.iter().filter(move |(kind, _)| kind == wanted);
            of_type.map(move |(_, text)| format!("{short}={text}"))
        })
        .collect();
    if parts.is_empty() {
        return "an issuer without a name".to_owned();
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

    #[test]
    fn the_issuer_is_read_out_of_a_certificate() {
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name
            .push(DnType::CommonName, "Corp Inspection CA");
        ca.distinguished_name
            .push(DnType::OrganizationName, "Zörp\u{7}");
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
        let mut host = CertificateParams::new(vec!["manage.office.com".to_owned()]).unwrap();
        host.distinguished_name.push(DnType::CommonName, "leaf");
        let leaf = host.signed_by(&KeyPair::generate().unwrap(), &ca).unwrap();
        assert_eq!(
            issuer(leaf.der()).as_deref(),
            Some("CN=Corp Inspection CA, O=Zörp")
        );
    }

    #[test]
    fn what_is_no_certificate_is_none_and_never_a_panic() {
        assert_eq!(issuer(b""), None);
        assert_eq!(issuer(b"hello"), None);
        assert_eq!(issuer(&[0x30, 0x82, 0xff, 0xff, 0x30]), None);
        let ca = CertificateParams::new(vec!["h".to_owned()]).unwrap();
        let whole = ca.self_signed(&KeyPair::generate().unwrap()).unwrap();
        for length in 0..whole.der().len() {
            issuer(&whole.der()[..length]);
        }
    }
}
