//! Where network addresses are, from the operator's own databases (MMDB: GeoLite2, DB-IP, IPinfo). Only
//! with the feature `geoip`; without it a configuration that names one is refused, so that rules do
//! not wait for fields that never come.

use exfilwatch_config::Config;
#[cfg(not(feature = "geoip"))]
use exfilwatch_detectors::DetectorsOptions;

use crate::cli::failure::Failure;

/// Gives the lists of all tenants the databases that the configuration names.
pub fn fill(config: &mut Config) -> Result<(), Failure> {
    let options = &config.detectors;
    if options.country_file.is_none() && options.asn_file.is_none() {
        return Ok(());
    }
    let places = open(options)?;
    for lists in config.lists.values_mut() {
        std::sync::Arc::make_mut(lists).places = Some(places.clone());
    }
    Ok(())
}

#[cfg(not(feature = "geoip"))]
fn open(
    _options: &DetectorsOptions,
) -> Result<std::sync::Arc<dyn exfilwatch_model::lists::Places>, Failure> {
    let what = "detectors.country_file and asn_file: this build reads no MMDB files";
    Err(Failure::new(crate::cli::failure::Code::Usage, what)
        .help("remove them, or build with cargo build --release --features geoip"))
}

#[cfg(feature = "geoip")]
use with_databases::open;

#[cfg(feature = "geoip")]
mod with_databases {
    use std::fmt;
    use std::net::IpAddr;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    use exfilwatch_detectors::DetectorsOptions;
    use exfilwatch_model::lists::{Place, Places};
    use maxminddb::Reader;
    use serde::Deserialize;

    use crate::cli::failure::{Code, Failure};

    /// What is read of an entry, whatever the maker calls the database.
    #[derive(Debug, Default, Deserialize)]
    struct Entry<'a> {
        #[serde(borrow, default)]
        country: Country<'a>,
        #[serde(default)]
        autonomous_system_number: Option<i64>,
    }

    #[derive(Debug, Default, Deserialize)]
    struct Country<'a> {
        #[serde(default)]
        iso_code: Option<&'a str>,
    }

    /// The databases, in memory.
    struct Databases(Vec<Reader<Vec<u8>>>);

    impl fmt::Debug for Databases {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let names = self.0.iter().map(|one| one.metadata.database_type.as_str());
            f.debug_list().entries(names).finish()
        }
    }

    impl Places for Databases {
        fn place(&self, address: IpAddr) -> Place {
            let mut place = Place::default();
            for database in &self.0 {
                // An address that a database cannot hold is one that it says nothing of.
                let found = database.lookup(address).ok();
                let entry = found
                    .as_ref()
                    .and_then(|found| found.decode::<Entry<'_>>().ok()?);
                let entry = entry.unwrap_or_default();
                place.asn = place.asn.or(entry.autonomous_system_number);
                place.region = place.region.or(entry.country.iso_code.map(str::to_owned));
            }
            place
        }
    }

    pub(super) fn open(options: &DetectorsOptions) -> Result<Arc<dyn Places>, Failure> {
        let named: [&Option<PathBuf>; 2] = [&options.country_file, &options.asn_file];
        let paths = named.into_iter().flatten();
        let read = paths.map(|path| read(path)).collect::<Result<_, _>>()?;
        Ok(Arc::new(Databases(read)))
    }

    fn read(path: &Path) -> Result<Reader<Vec<u8>>, Failure> {
        Reader::open_readfile(path).map_err(|error| {
            let what = format!("reading the address database {}", path.display());
            Failure::caused(Code::Usage, what, &error)
                .help("name an MMDB file, such as GeoLite2-Country.mmdb, that this user may read")
        })
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        fn text(text: &str) -> Vec<u8> {
            let mut bytes = vec![0x40 | u8::try_from(text.len()).unwrap()];
            bytes.extend(text.as_bytes());
            bytes
        }

        fn map(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
            let mut bytes = vec![0xe0 | u8::try_from(members.len()).unwrap()];
            for (name, value) in members {
                bytes.extend(text(name));
                bytes.extend(value);
            }
            bytes
        }

        /// A number of the type 5 (16 bits) or 6 (32 bits).
        fn number(kind: u8, value: u16) -> Vec<u8> {
            let [high, low] = value.to_be_bytes();
            vec![kind << 5 | 2, high, low]
        }

        /// A database of IPv4 whose only entry is of 0.0.0.0/1.
        fn database(entry: &[u8]) -> Vec<u8> {
            // One node: left to the entry, right to nothing. Then 16 zeroes, the entry, and the rest.
            let mut bytes = vec![0, 0, 17, 0, 0, 1];
            bytes.extend([0; 16]);
            bytes.extend(entry);
            bytes.extend(b"\xab\xcd\xefMaxMind.com");
            bytes.extend(map(&[
                ("binary_format_major_version", number(5, 2)),
                ("binary_format_minor_version", number(5, 0)),
                ("build_epoch", vec![0x01, 0x02, 1]),
                ("database_type", text("Test")),
                ("description", map(&[])),
                ("ip_version", number(5, 4)),
                ("languages", vec![0x00, 0x04]),
                ("node_count", number(6, 1)),
                ("record_size", number(5, 24)),
            ]));
            bytes
        }

        #[test]
        fn an_address_has_what_the_databases_say_of_it() {
            let folder = tempfile::tempdir().unwrap();
            let write = |name: &str, bytes: &[u8]| {
                let path = folder.path().join(name);
                std::fs::write(&path, bytes).unwrap();
                Some(path)
            };
            let country = map(&[("country", map(&[("iso_code", text("DE"))]))]);
            let asn = map(&[("autonomous_system_number", number(6, 64_500))]);
            let options = DetectorsOptions {
                country_file: write("country.mmdb", &database(&country)),
                asn_file: write("asn.mmdb", &database(&asn)),
                ..DetectorsOptions::default()
            };
            let places = open(&options).unwrap();
            let known = Place {
                asn: Some(64_500),
                region: Some("DE".to_owned()),
            };
            assert_eq!(places.place("9.9.9.9".parse().unwrap()), known);
            for unknown in ["203.0.113.1", "2001:db8::1"] {
                assert_eq!(places.place(unknown.parse().unwrap()), Place::default());
            }
            let broken = DetectorsOptions {
                asn_file: write("broken.mmdb", b"not a database"),
                ..DetectorsOptions::default()
            };
            let failure = open(&broken).unwrap_err();
            assert!(failure.message.contains("broken.mmdb"), "{failure:?}");
        }
    }
}
