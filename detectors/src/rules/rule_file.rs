//! A rule file taken apart: its documents as Sigma sees them, and our keys of each.

use exfilwatch_model::Product;
use rsigma_parser::{CorrelationRule, SigmaDocument, SigmaRule};
use serde::Deserialize;
use uuid::Uuid;
use yaml_serde::{Mapping, Value};

use super::error::{Place, RuleError};
use super::schema::{OWN_KEYS, OwnKeys};
use super::sigma::{self, Mapped};

/// Largest rule file, in bytes.
pub(crate) const FILE_BYTES_MAX: usize = 1 << 20;
/// What the names of stock rules begin with, and of no built-in rule.
pub(crate) const STOCK_PREFIX: &str = "sigma.";
/// Most documents in a file.
pub(crate) const DOCUMENTS_MAX: usize = 100;

/// A document of a rule file.
#[derive(Debug)]
pub(crate) struct Document {
    /// From 1.
    pub(crate) number: usize,
    pub(crate) id: Uuid,
    /// Dotted detection name; of a stock rule made from its title.
    pub(crate) name: String,
    pub(crate) sigma: Sigma,
    pub(crate) own: OwnKeys,
    pub(crate) is_own: bool,
    /// Keys of other tools, which are not read.
    pub(crate) foreign: Vec<String>,
    /// What was made of a stock rule's field names.
    pub(crate) mapping: Mapped,
}

impl Document {
    /// Its title.
    pub(crate) fn title(&self) -> &str {
        match &self.sigma {
            Sigma::Rule(rule) => &rule.title,
            Sigma::Correlation(rule) => &rule.title,
        }
    }
}

/// What Sigma sees.
#[derive(Debug)]
pub(crate) enum Sigma {
    Rule(Box<SigmaRule>),
    Correlation(Box<CorrelationRule>),
}

/// A file: its documents and its version.
#[derive(Debug)]
pub(crate) struct RuleFile {
    pub(crate) name: String,
    /// First 12 hexadecimal digits of a hash of the text.
    pub(crate) version: String,
    pub(crate) documents: Vec<Document>,
}

impl RuleFile {
    /// Reads a file's text.
    pub(crate) fn parse(name: &str, text: &str) -> Result<Self, RuleError> {
        let whole = Place {
            file: name,
            document: 0,
        };
        if text.len() > FILE_BYTES_MAX {
            let problem = format!("it has {} bytes, more than {FILE_BYTES_MAX}", text.len());
            return Err(whole.error("", problem, "split it"));
        }
        let mut documents = Vec::new();
        for (text, number) in split(text).zip(1..) {
            if number > DOCUMENTS_MAX {
                let problem = format!("it has more than {DOCUMENTS_MAX} documents");
                return Err(whole.error("", problem, "split it"));
            }
            documents.push(document(
                Place {
                    file: name,
                    document: number,
                },
                text,
            )?);
        }
        if documents.is_empty() {
            return Err(whole.error("", "it holds no rule", "write a Sigma rule or remove it"));
        }
        let hash = Uuid::new_v5(&exfilwatch_model::identity::NAMESPACE, text.as_bytes());
        let version = hash.simple().to_string().chars().take(12).collect();
        Ok(Self {
            name: name.to_owned(),
            version,
            documents,
        })
    }

    /// Lets go of the cases, which are most of a built-in file.
    pub(crate) fn forget_cases(&mut self) {
        for document in &mut self.documents {
            document.own.tests = Vec::new();
        }
    }
}

/// The documents of a YAML stream. A line of `---` at its start parts them; within block text
/// lines are indented.
pub(super) fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut starts = vec![0];
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        offset += line.len();
        if line.trim_end() == "---" {
            starts.push(offset);
        }
    }
    starts.push(text.len());
    let pieces: Vec<&str> = starts
        .windows(2)
        .filter_map(|pair| text.get(*pair.first()?..*pair.last()?))
        .map(|piece| piece.trim_end().strip_suffix("\n---").unwrap_or(piece))
        .collect();
    pieces.into_iter().filter(|piece| {
        piece.lines().any(|line| {
            !line.trim().is_empty() && !line.starts_with('#') && line.trim_end() != "---"
        })
    })
}

fn document(place: Place<'_>, text: &str) -> Result<Document, RuleError> {
    let mapping: Mapping = yaml_serde::from_str(text).map_err(|error| {
        place.error(
            "",
            format!("it is not valid YAML: {error}"),
            "mend it at that line",
        )
    })?;
    if mapping.contains_key("action") {
        return Err(place.error("action", "collections are not read", "write each rule out"));
    }
    let parsed = rsigma_parser::parse_sigma_yaml(text)
        .map_err(|error| place.error("", error.to_string(), "see the Sigma specification"))?;
    if let Some(error) = parsed.errors.first() {
        return Err(place.error("", error.clone(), "see the Sigma specification"));
    }
    let sigma = parsed
        .rules
        .into_iter()
        .map(|rule| SigmaDocument::Rule(Box::new(rule)));
    let correlations = parsed
        .correlations
        .into_iter()
        .map(SigmaDocument::Correlation);
    match sigma.chain(correlations).next() {
        Some(SigmaDocument::Rule(mut rule)) => {
            let attributes = std::mem::take(&mut rule.custom_attributes);
            let (id, name) = (rule.id.clone(), rule.name.clone());
            let title = rule.title.clone();
            finish(place, Sigma::Rule(rule), (id, name, title), attributes)
        }
        Some(SigmaDocument::Correlation(mut rule)) => {
            let attributes = std::mem::take(&mut rule.custom_attributes);
            let (id, name) = (rule.id.clone(), rule.name.clone());
            let title = rule.title.clone();
            finish(
                place,
                Sigma::Correlation(Box::new(rule)),
                (id, name, title),
                attributes,
            )
        }
        Some(SigmaDocument::Filter(_)) | None => Err(place.error(
            "filter",
            "filters are not read",
            "write the exception into the rule",
        )),
    }
}

fn finish(
    place: Place<'_>,
    mut sigma: Sigma,
    (id, name, title): (Option<String>, Option<String>, String),
    attributes: std::collections::HashMap<String, Value>,
) -> Result<Document, RuleError> {
    let help = "give it a version 4 UUID that never changes";
    let Some(id) = id else {
        return Err(place.error("id", "it is missing", help));
    };
    let id = id
        .parse()
        .map_err(|_| place.error("id", format!("{id:?} is no UUID"), help))?;
    let is_own = OWN_KEYS.iter().any(|key| attributes.contains_key(*key));
    let (mut own, mut foreign) = (Mapping::new(), Vec::new());
    for (key, value) in attributes {
        if OWN_KEYS.contains(&key.as_str()) {
            own.insert(Value::String(key), value);
        } else if is_own {
            let help = format!("known are Sigma's keys and {}", OWN_KEYS.join(", "));
            return Err(place.error(&key, "it is not known", help));
        } else {
            foreign.push(key);
        }
    }
    let own: OwnKeys = read_own(place, own)?;
    let mapping = match &mut sigma {
        _ if is_own => Mapped::default(),
        Sigma::Rule(rule) => sigma::map(rule),
        Sigma::Correlation(rule) => sigma::map_correlation(rule),
    };
    let name = name.unwrap_or_else(|| stock_name(&title));
    Ok(Document {
        number: place.document,
        id,
        name,
        sigma,
        own,
        is_own,
        foreign,
        mapping,
    })
}

/// Reads our keys; where they do not read, one by one, so that the error names its key.
fn read_own(place: Place<'_>, own: Mapping) -> Result<OwnKeys, RuleError> {
    let help = "compare with a built-in rule (rules show)";
    let all = Value::Mapping(own);
    let problem = match OwnKeys::deserialize(&all) {
        Ok(keys) => return Ok(keys),
        Err(problem) => problem,
    };
    for (key, value) in all.as_mapping().into_iter().flatten() {
        let mut one = Mapping::new();
        one.insert(key.clone(), value.clone());
        if let Err(problem) = yaml_serde::from_value::<OwnKeys>(Value::Mapping(one)) {
            let key = key.as_str().unwrap_or_default();
            return Err(place.error(key, problem.to_string(), help));
        }
    }
    Err(place.error("", problem.to_string(), help))
}

/// Detection name of a stock Sigma rule, which has none: `sigma.` and its title.
fn stock_name(title: &str) -> String {
    let mut name = String::from(STOCK_PREFIX);
    for c in title.to_lowercase().chars().take(100) {
        let c = if c.is_ascii_alphanumeric() { c } else { '_' };
        if c != '_' || !name.ends_with(['_', '.']) {
            name.push(c);
        }
    }
    name.trim_end_matches('_').to_owned()
}

/// The product of a log source, or why it is none of ours. Sigma's own names for the logs of
/// Google Workspace (`gcp`, `google_workspace.admin`) are understood.
pub(crate) fn product(source: &rsigma_parser::LogSource) -> Result<Product, String> {
    match (source.product.as_deref(), source.service.as_deref()) {
        (Some("m365"), _) => Ok(Product::M365),
        (Some("google_workspace"), _) => Ok(Product::GoogleWorkspace),
        (Some("gcp"), Some(service)) if service.starts_with("google_workspace") => {
            Ok(Product::GoogleWorkspace)
        }
        (Some(other), None) => Err(format!("log source product {other:?} is not read here")),
        (Some(other), Some(service)) => Err(format!(
            "log source product {other:?}, service {service:?} is not read here"
        )),
        (None, _) => Err("it names no log source product".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: &str = "title: A Rule, Stock\nid: 5d3c1a52-9f0a-4b0c-8a52-0d6a8e1f0001\n\
        logsource: {product: m365}\ndetection:\n  a: {operation: x}\n  condition: a\n";

    #[test]
    fn a_file_is_cut_at_its_separators_and_block_text_is_left_whole() {
        let text = format!("# head\n---\n{RULE}---\n{RULE}description: |\n  a\n  ---\n  b\n---\n");
        let file = RuleFile::parse("f.yml", &text).unwrap();
        assert_eq!(file.documents.len(), 2);
        assert_eq!(file.documents[1].number, 2);
        assert_eq!(file.documents[0].name, "sigma.a_rule_stock");
        assert_eq!(file.version.len(), 12);
    }

    #[test]
    fn what_is_wrong_is_said_with_file_document_and_key() {
        for (extra, expected) in [
            (
                "rsk: 5\nalert: true\n",
                "document 1, key `rsk`: it is not known",
            ),
            ("risk: 500\n", "key `risk`"),
            ("identity: {entitty: actor}\n", "key `identity`"),
            ("raise: [{level: hgh, when: {a: b}}]\n", "key `raise`"),
            ("action: global\n", "key `action`"),
            ("level: hihg\n", "invalid level"),
            ("x: [\n", "not valid YAML"),
        ] {
            let error = RuleFile::parse("f.yml", &format!("{RULE}{extra}")).unwrap_err();
            let text = error.to_string();
            assert!(
                text.contains("rule file f.yml") && text.contains(expected),
                "{text}"
            );
        }
        let no_id = RULE.replace("id: 5d3c1a52-9f0a-4b0c-8a52-0d6a8e1f0001", "author: x");
        assert!(
            RuleFile::parse("f.yml", &no_id)
                .unwrap_err()
                .to_string()
                .contains("key `id`")
        );
        assert!(RuleFile::parse("f.yml", "\n").is_err());
        assert!(RuleFile::parse("f.yml", &" ".repeat(FILE_BYTES_MAX + 1)).is_err());
    }
}
