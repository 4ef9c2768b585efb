//! The common name in the subject of a certificate: a walk over DER (X.690) along RFC 5280 §4.1.

const INTEGER: u8 = 0x02;
const OBJECT_ID: u8 = 0x06;
const UTF8_STRING: u8 = 0x0C;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xA0;

/// `id-at-commonName`, 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// The first common name, when it is text without control characters.
pub(super) fn of(certificate: &[u8]) -> Option<String> {
    let mut certificate = Der(Der(certificate).take(SEQUENCE)?);
    let mut tbs = Der(certificate.take(SEQUENCE)?);
    if tbs.tag() == Some(VERSION) {
        tbs.take(VERSION)?;
    }
    tbs.take(INTEGER)?; // serial number
    tbs.take(SEQUENCE)?; // signature algorithm
    tbs.take(SEQUENCE)?; // issuer
    tbs.take(SEQUENCE)?; // validity
    let mut subject = Der(tbs.take(SEQUENCE)?);
    while subject.tag().is_some() {
        let mut attributes = Der(subject.take(SET)?);
        while attributes.tag().is_some() {
            let mut attribute = Der(attributes.take(SEQUENCE)?);
            if attribute.take(OBJECT_ID)? == COMMON_NAME {
                return text(attribute);
            }
        }
    }
    None
}

fn text(mut value: Der<'_>) -> Option<String> {
    let tag = value.tag()?;
    if ![UTF8_STRING, PRINTABLE_STRING, IA5_STRING].contains(&tag) {
        return None;
    }
    let text = std::str::from_utf8(value.take(tag)?).ok()?;
    (!text.is_empty() && !text.chars().any(char::is_control)).then(|| text.to_owned())
}

/// Bytes from which DER elements are taken from the front.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    fn tag(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The content of the next element if it has this tag.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (&[found, first], rest) = self.0.split_first_chunk()?;
        if found != tag {
            return None;
        }
        let (len, rest) = match first {
            0..=0x7F => (usize::from(first), rest),
            0x81..=0x83 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x0F))?;
                (bytes.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    fn certificate(names: &[(DnType, &str)]) -> Vec<u8> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in names {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_common_name_is_found_among_other_names() {
        let long = "x".repeat(300);
        for name in ["sensor-7", "Zoë", long.as_str()] {
            let der = certificate(&[
                (DnType::CountryName, "NL"),
                (DnType::OrganizationName, "Example"),
                (DnType::CommonName, name),
            ]);
            assert_eq!(of(&der).as_deref(), Some(name));
        }
    }

    #[test]
    fn a_subject_without_a_usable_common_name_has_none() {
        assert_eq!(of(&certificate(&[(DnType::OrganizationName, "Example")])), None);
        assert_eq!(of(&certificate(&[(DnType::CommonName, "a\0b")])), None);
        assert_eq!(of(&certificate(&[(DnType::CommonName, "")])), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(at in 0usize..600, byte: u8, cut in 0usize..600) {
            let mut der = certificate(&[(DnType::CommonName, "sensor")]);
            if let Some(there) = der.get_mut(at) {
                *there = byte;
            }
            der.truncate(cut);
            of(&der);
        }
    }
}
