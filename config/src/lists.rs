//! The lists of a tenant: CSV files of people, apps and domains, as directories and personnel offices
//! export them.
//!
//! Columns are known by their names, in any order and case, with the names of common exports. A cell
//! that cannot be understood is told with file and line: a leaver whose date is misread would be
//! nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use chrono::NaiveDate;
use exfilwatch_detectors::tuning::{AllowOptions, allowed};
use exfilwatch_model::domains::clean_domain;
use exfilwatch_model::{Lists, Person};

use crate::files::read_text_up_to;
use crate::options::Tenant;
use crate::origin::{Origin, Problem};
use crate::tables::Item;
use crate::tree::{Table, table_at};

/// Largest file, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Most rows of a file.
const ROWS_MAX: usize = 500_000;
/// Most faults told of a file.
const FAULTS_MAX: usize = 10;
/// Separators in use; which one a file has is told by its first line.
const DELIMITERS: [u8; 3] = [b',', b';', b'\t'];

/// Names of the columns that matter, letters and digits only.
const ADDRESS: &[&str] = &[
    "address",
    "email",
    "emailaddress",
    "emailaddressrequired",
    "primaryemail",
    "mail",
    "userprincipalname",
    "upn",
];
const ALIASES: &[&str] = &[
    "alias",
    "aliases",
    "emailaliases",
    "otheremails",
    "proxyaddresses",
];
const VIP: &[&str] = &["vip", "isvip"];
const LEAVES: &[&str] = &[
    "leaves",
    "leaverdate",
    "leavingdate",
    "lastday",
    "lastworkingday",
    "enddate",
    "terminationdate",
    "employeeleavedatetime",
];
const MANAGER: &[&str] = &["manager", "manageraddress", "manageremail", "managermail"];
const SERVICE: &[&str] = &["serviceaccount", "isserviceaccount"];
const GROUPS: &[&str] = &["group", "groups", "department", "team"];
const APP_ID: &[&str] = &[
    "id",
    "clientid",
    "appid",
    "applicationid",
    "applicationclientid",
];
const APPROVED: &[&str] = &["approved", "isapproved"];
const APP_NAME: &[&str] = &["name", "appname", "displayname", "applicationname"];
const DOMAIN: &[&str] = &["domain", "domains", "domainname"];

/// Reads the lists that a tenant names. A list that cannot be read is a problem at the tenant's place.
pub(crate) fn read(
    item: &Item<Tenant>,
    allow: &AllowOptions,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<Problem>,
) -> Lists {
    let options = &item.options.lists;
    let place = item.place_of("lists");
    let mut told = Told::default();
    let people = options.people_file.as_deref();
    let people = people.map(|path| told.table(path, people_of));
    let apps = options.apps_file.as_deref();
    let apps = apps.map(|path| told.table(path, apps_of));
    let mut domains = |path: &Option<std::path::PathBuf>| {
        let path = path.as_deref();
        path.map(|path| told.table(path, domains_of))
            .unwrap_or_default()
    };
    let free_mail = domains(&options.free_mail_file);
    let lookalikes = domains(&options.lookalikes_file);
    let partners = domains(&options.partners_file);
    problems.extend(told.faults.iter().map(|what| Problem::new(place, what)));
    warnings.extend(told.odd.iter().map(|what| Problem::new(place, what)));
    let mut lists = Lists::new(people.unwrap_or_default(), apps.unwrap_or_default());
    lists.free_mail = free_mail.into_iter().collect();
    lists.lookalikes = lookalikes;
    lists.partners = partners;
    lists.leaver_days = options.leaver_days;
    let own = &item.options.detectors.allow;
    lists.allowed = allowed(allow, own);
    problems.extend(faults(own, &item.table, item.place_of("detectors")));
    lists
}

/// What is wrong with what `detectors.allow` says in a table, where it stands; or else `place`.
pub(crate) fn faults(allow: &AllowOptions, table: &Table, place: &Origin) -> Vec<Problem> {
    let lists = table_at(table, "detectors").and_then(|detectors| table_at(detectors, "allow"));
    let place_of = |key: &str| lists.and_then(|lists| Some(&lists.get(key)?.node.origin));
    let faults = allow.faults().into_iter();
    let problem = |(key, what): (&'static str, String)| {
        let what = format!("`detectors.allow.{key}`: {what}");
        Problem::new(place_of(key).unwrap_or(place), what)
    };
    faults.map(problem).collect()
}

/// What is to be said of the files.
#[derive(Default)]
struct Told {
    faults: Vec<String>,
    odd: Vec<String>,
}

impl Told {
    fn table<T: Default>(&mut self, path: &Path, read: fn(&mut Rows<'_>) -> T) -> T {
        let text = match read_text_up_to(path, FILE_BYTES_MAX) {
            Ok(text) => text,
            Err(why) => {
                self.faults
                    .push(format!("the list {} {why}", path.display()));
                return T::default();
            }
        };
        let mut rows = Rows::new(&text);
        let value = read(&mut rows);
        let name = path.display();
        let faults = rows.faults.iter().take(FAULTS_MAX);
        let faults = faults.map(|(line, what)| format!("the list {name}, line {line}: {what}"));
        self.faults.extend(faults);
        if !rows.unused.is_empty() {
            let unused = rows.unused.join(", ");
            self.odd.push(format!(
                "the list {name} has columns that nothing is made of: {unused}"
            ));
        }
        value
    }
}

/// The rows of a file.
struct Rows<'a> {
    reader: csv::Reader<&'a [u8]>,
    header: Vec<String>,
    faults: Vec<(u64, String)>,
    unused: Vec<String>,
}

impl<'a> Rows<'a> {
    fn new(text: &'a str) -> Self {
        let text = text.trim_start_matches('\u{feff}');
        let first = text.lines().next().unwrap_or_default();
        let count = |delimiter: &u8| first.bytes().filter(|byte| byte == delimiter).count();
        let delimiter = DELIMITERS
            .into_iter()
            .rev()
            .max_by_key(count)
            .unwrap_or(b',');
        let reader = csv::ReaderBuilder::new()
            .delimiter(delimiter)
            .has_headers(false)
            .flexible(true)
            .comment(Some(b'#'))
            .trim(csv::Trim::All)
            .from_reader(text.as_bytes());
        Self {
            reader,
            header: Vec::new(),
            faults: Vec::new(),
            unused: Vec::new(),
        }
    }

    /// The next row with its line.
    fn next(&mut self) -> Option<(u64, csv::StringRecord)> {
        let mut row = csv::StringRecord::new();
        match self.reader.read_record(&mut row) {
            Ok(true) => {
                let line = row.position().map_or(0, csv::Position::line);
                Some((line, row))
            }
            Ok(false) => None,
            Err(error) => {
                let line = self.reader.position().line();
                self.faults
                    .push((line, format!("not readable as CSV: {error}")));
                None
            }
        }
    }

    /// Reads the line of column names; `known` are all that matter.
    fn read_header(&mut self, known: &[&[&str]]) {
        let Some((_, row)) = self.next() else { return };
        let is_known = |name: &str| known.iter().any(|names| names.contains(&name));
        for cell in &row {
            let name = plain(cell);
            if !is_known(&name) && !name.is_empty() {
                self.unused.push(cell.to_owned());
            }
            self.header.push(name);
        }
    }

    /// Places of the columns with one of these names.
    fn columns(&self, names: &[&str]) -> Vec<usize> {
        let places = (0..).zip(&self.header);
        places
            .filter_map(|(place, name)| names.contains(&name.as_str()).then_some(place))
            .collect()
    }

    fn require(&mut self, columns: &[usize], what: &str) {
        if columns.is_empty() {
            let what = format!("the first line names no column `{what}`: write column names first");
            self.faults.push((1, what));
        }
    }

    /// Gives each row to a function that says what is wrong with it.
    fn each(&mut self, mut take: impl FnMut(&Cells<'_>) -> Result<(), String>) {
        let mut count = 0;
        let columns = self.header.len();
        while let Some((line, row)) = self.next() {
            count += 1;
            if count > ROWS_MAX {
                self.faults
                    .push((line, format!("there are more than {ROWS_MAX} rows")));
                return;
            }
            // A quote that is not closed makes one cell of the rest of the file: nobody is to vanish in it.
            if row.iter().any(|cell| cell.contains('\n')) {
                let what = "a cell goes over several lines: is a quote not closed?";
                self.faults.push((line, what.to_owned()));
                continue;
            }
            // Spreadsheets end rows with empty cells.
            let full = (1..).zip(&row).filter(|(_, cell)| !cell.is_empty());
            let cells = full.map(|(number, _)| number).max().unwrap_or(0);
            if columns > 0 && cells > columns {
                let what = format!("there are {cells} cells under {columns} column names");
                self.faults.push((line, what));
                continue;
            }
            if let Err(what) = take(&Cells(&row)) {
                self.faults.push((line, what));
            }
        }
    }
}

/// The cells of a row.
struct Cells<'a>(&'a csv::StringRecord);

impl<'a> Cells<'a> {
    /// Cells of these columns that hold something.
    fn all(&self, columns: &[usize]) -> impl Iterator<Item = &'a str> {
        let row = self.0;
        let cells = columns.iter().filter_map(move |place| row.get(*place));
        let full: Vec<&'a str> = cells.filter(|cell| !cell.is_empty()).collect();
        full.into_iter()
    }

    fn is(&self, columns: &[usize]) -> Result<bool, String> {
        let mut is = false;
        for cell in self.all(columns) {
            is |= match cell.to_lowercase().as_str() {
                "yes" | "y" | "true" | "1" | "x" => true,
                "no" | "n" | "false" | "0" | "-" => false,
                _ => return Err(format!("{cell:?} is neither yes nor no")),
            };
        }
        Ok(is)
    }

    fn date(&self, columns: &[usize]) -> Result<Option<NaiveDate>, String> {
        let Some(cell) = self.all(columns).next() else {
            return Ok(None);
        };
        // Directories export a time behind the date.
        let day = cell.split(['T', ' ']).next().unwrap_or_default();
        let date = day.parse::<NaiveDate>();
        date.map(Some)
            .map_err(|_| format!("{cell:?} is no date: write 2026-12-31"))
    }
}

fn plain(name: &str) -> String {
    let letters = name.chars().filter(char::is_ascii_alphanumeric);
    letters.collect::<String>().to_lowercase()
}

/// An address as events have it.
fn address(text: &str) -> String {
    let lower = text.trim().to_lowercase();
    lower.strip_prefix("smtp:").unwrap_or(&lower).to_owned()
}

fn people_of(rows: &mut Rows<'_>) -> Vec<Person> {
    rows.read_header(&[ADDRESS, ALIASES, VIP, LEAVES, MANAGER, SERVICE, GROUPS]);
    let main = rows.columns(ADDRESS);
    rows.require(&main, "address");
    let [aliases, vip, leaves, manager, service, groups] =
        [ALIASES, VIP, LEAVES, MANAGER, SERVICE, GROUPS].map(|names| rows.columns(names));
    let mut people = Vec::new();
    let mut known = BTreeSet::new();
    rows.each(|cells| {
        let mut addresses = cells.all(&main).map(address);
        let Some(first) = addresses.next() else {
            return Err("the address is missing".to_owned());
        };
        if !known.insert(first.clone()) {
            return Err(format!("{first} stands here for the second time"));
        }
        let several = cells.all(&aliases).flat_map(|cell| {
            let parts = cell.split([';', '|', ',', ' ']).map(address);
            parts.filter(|part| !part.is_empty()).collect::<Vec<_>>()
        });
        let aliases = addresses.chain(several).filter(|alias| *alias != first);
        let of_groups = cells.all(&groups).flat_map(|cell| {
            let parts = cell
                .split([';', '|'])
                .map(|part| part.trim().to_lowercase());
            parts.filter(|part| !part.is_empty()).collect::<Vec<_>>()
        });
        people.push(Person {
            aliases: aliases.collect(),
            vip: cells.is(&vip)?,
            leaves: cells.date(&leaves)?,
            manager: cells.all(&manager).next().map(address),
            service_account: cells.is(&service)?,
            groups: of_groups.collect(),
            address: first,
        });
        Ok(())
    });
    people
}

fn apps_of(rows: &mut Rows<'_>) -> BTreeMap<String, bool> {
    rows.read_header(&[APP_ID, APPROVED, APP_NAME]);
    let [id, approved] = [APP_ID, APPROVED].map(|names| rows.columns(names));
    rows.require(&id, "client_id");
    let mut apps = BTreeMap::new();
    rows.each(|cells| {
        let Some(id) = cells.all(&id).next() else {
            return Err("the client id is missing".to_owned());
        };
        // A list of apps without the column is a list of approved ones.
        let is = approved.is_empty() || cells.is(&approved)?;
        if apps
            .insert(id.to_lowercase(), is)
            .is_some_and(|old| old != is)
        {
            return Err(format!("{id} stands here twice, with yes and with no"));
        }
        Ok(())
    });
    apps
}

/// One domain a line: the first column. A line of column names may be left out.
fn domains_of(rows: &mut Rows<'_>) -> Vec<String> {
    let mut domains = Vec::new();
    let mut is_first = true;
    rows.each(|cells| {
        let Some(cell) = cells.all(&[0]).next() else {
            return Ok(());
        };
        let domain = clean_domain(cell);
        let is_header = std::mem::take(&mut is_first) && DOMAIN.contains(&plain(cell).as_str());
        if is_header {
            return Ok(());
        }
        let is_odd = |c: char| !(c.is_alphanumeric() || c == '-' || c == '.');
        if domain.contains(is_odd) || !domain.contains('.') {
            return Err(format!("{cell:?} is not a domain such as partner.example"));
        }
        domains.push(domain);
        Ok(())
    });
    domains
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<(u64, String)> {
        let mut rows = Rows::new(text);
        people_of(&mut rows);
        rows.faults
    }

    #[test]
    fn people_are_read_from_the_exports_there_are() {
        let text = "\u{feff}User principal name;Mail;proxyAddresses;VIP;Last day;Manager e-mail;Department;Phone\n\
                    Alice@Corp.example;alice.smith@corp.example;SMTP:alice@corp.example|smtp:as@corp.example;yes;2026-06-30T00:00:00Z;Boss@corp.example;Finance; Sales;1\n\
                    # nobody\n\
                    bob@corp.example;;;;;;;\n";
        let text = text.replace("Finance; Sales", "\"Finance; Sales\"");
        let mut rows = Rows::new(&text);
        let people = people_of(&mut rows);
        assert_eq!(rows.faults, []);
        assert_eq!(rows.unused, ["Phone"]);
        let [alice, bob] = people.as_slice() else {
            panic!("{people:?}")
        };
        assert_eq!(alice.address, "alice@corp.example");
        assert_eq!(
            alice.aliases,
            ["alice.smith@corp.example", "as@corp.example"]
        );
        assert_eq!(alice.groups, ["finance", "sales"]);
        assert_eq!(alice.manager.as_deref(), Some("boss@corp.example"));
        assert_eq!(alice.leaves, "2026-06-30".parse().ok());
        assert!(alice.vip && !bob.vip);
    }

    #[test]
    fn what_cannot_be_understood_is_told_with_its_line() {
        let told = faults(
            "address,vip,leaver_date\na@c.example,perhaps,\nb@c.example,,30.6.2026\n,yes,\na@c.example,,\n",
        );
        let lines: Vec<u64> = told.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [2, 3, 4, 5], "{told:?}");
        assert!(told[1].1.contains("2026-12-31"), "{told:?}");
        assert_eq!(faults("name,vip\nx,yes\n").first().map(|f| f.0), Some(1));
    }

    #[test]
    fn an_app_list_without_the_column_approves_what_it_names() {
        let apps = |text: &str| apps_of(&mut Rows::new(text));
        let all = apps("client_id,name\nAB,Mail\n");
        assert_eq!(all.get("ab"), Some(&true));
        let some = apps("Application (client) ID,Approved\nab,no\ncd,yes\n");
        assert_eq!(
            (some.get("ab"), some.get("cd")),
            (Some(&false), Some(&true))
        );
    }

    #[test]
    fn a_list_of_domains_needs_no_column_names() {
        for text in [
            "a.example\n@B.example\n",
            "Domain\na.example\n# c\nb.example,x\n",
        ] {
            let mut rows = Rows::new(text);
            assert_eq!(domains_of(&mut rows), ["a.example", "b.example"], "{text}");
            assert_eq!(rows.faults, []);
        }
        let mut rows = Rows::new("a.example\nnot a domain\n");
        domains_of(&mut rows);
        assert_eq!(rows.faults.len(), 1);
    }
}
