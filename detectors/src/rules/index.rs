//! Which rules may match an event: by product and operation, so that an event meets only those.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use exfilwatch_model::{FieldSet, Glance, Product, Sight};

use super::need::Need;
use crate::contract::Interest;
use exfilwatch_model::pattern::Pattern;

/// Positions by product and operation.
#[derive(Debug, Default)]
pub(crate) struct Index {
    m365: Table,
    google_workspace: Table,
    /// What each position looks at in an event; `None` where that is all.
    asked: Vec<Option<BTreeSet<String>>>,
    /// What they look at together.
    fields: Arc<FieldSet>,
}

/// Most operations whose rules are remembered; those beyond are looked up each time.
const KNOWN_MAX: usize = 4_096;

#[derive(Debug, Default)]
struct Table {
    exact: HashMap<String, Vec<(usize, Need)>>,
    patterns: Vec<(Pattern, usize, Need)>,
    all: Vec<(usize, Need)>,
    /// What was worked out, by the operation as it is written: a log has few, and there are many
    /// patterns.
    known: RwLock<HashMap<String, Arc<Named>>>,
}

/// Who wants an operation, and what one of them needs at least: `None` where nobody wants it.
#[derive(Debug)]
struct Named {
    positions: Vec<usize>,
    need: Option<Need>,
    /// What they look at: worked out when it is first asked for.
    fields: OnceLock<Arc<FieldSet>>,
    /// How that shows in a record: worked out when it is first asked for.
    glance: OnceLock<Glance>,
}

impl Index {
    /// An index over what each wants and looks at; positions are those of the iterator.
    pub(crate) fn new(
        all: impl IntoIterator<Item = (Vec<Interest>, Option<BTreeSet<String>>)>,
    ) -> Self {
        let mut index = Self::default();
        for (position, (interests, asked)) in all.into_iter().enumerate() {
            index.asked.push(asked);
            for interest in interests {
                for product in [Product::M365, Product::GoogleWorkspace] {
                    if interest.product.is_none_or(|only| only == product) {
                        index.table_mut(product).add(&interest, position);
                    }
                }
            }
        }
        index.fields = Arc::new(index.fields_of(0..index.asked.len()));
        index
    }

    /// What some positions look at.
    fn fields_of(&self, positions: impl IntoIterator<Item = usize>) -> FieldSet {
        let asked = positions
            .into_iter()
            .filter_map(|place| self.asked.get(place));
        match asked.map(Option::as_ref).collect::<Option<Vec<_>>>() {
            Some(named) => FieldSet::of(named.into_iter().flatten().cloned()),
            None => FieldSet::all(),
        }
    }

    fn table_mut(&mut self, product: Product) -> &mut Table {
        match product {
            Product::M365 => &mut self.m365,
            Product::GoogleWorkspace => &mut self.google_workspace,
        }
    }

    fn table(&self, product: Product) -> &Table {
        match product {
            Product::M365 => &self.m365,
            Product::GoogleWorkspace => &self.google_workspace,
        }
    }

    /// Whether anything wants one of these operations.
    pub(crate) fn wants(&self, product: Product, operations: &[Cow<'_, str>]) -> bool {
        let table = self.table(product);
        named(operations).any(|operation| table.named(operation).need.is_some())
    }

    /// The same, less what the record's text rules out. Called for every record.
    pub(crate) fn wants_record(
        &self,
        product: Product,
        operations: &[Cow<'_, str>],
        text: &[u8],
        sight: &dyn Sight,
    ) -> bool {
        let table = self.table(product);
        named(operations).any(|operation| {
            let named = table.named(operation);
            named.need.as_ref().is_some_and(|need| {
                let look = || need.look(&|claim| sight.look(operation, claim));
                let glance = named.glance.get_or_init(|| Glance::new(&look()));
                glance.may_be(text, sight)
            })
        })
    }

    /// What those look at who want these operations: of several, what all look at.
    pub(crate) fn fields(&self, product: Product, operations: &[Cow<'_, str>]) -> Arc<FieldSet> {
        let mut named = named(operations);
        let operation = named.next().unwrap_or_default();
        if named.any(|other| other != operation) {
            return Arc::clone(&self.fields);
        }
        let named = self.table(product).named(operation);
        let fields = || Arc::new(self.fields_of(named.positions.iter().copied()));
        Arc::clone(named.fields.get_or_init(fields))
    }

    /// Puts the positions that want this operation into `found`, in order, each once.
    pub(crate) fn find(&self, product: Product, operation: &str, found: &mut Vec<usize>) {
        found.clear();
        found.extend_from_slice(&self.table(product).named(operation).positions);
    }
}

impl Table {
    fn add(&mut self, interest: &Interest, position: usize) {
        if interest.operations.is_empty() {
            self.all.push((position, interest.need.clone()));
        }
        for operation in &interest.operations {
            let pattern = Pattern::new(operation);
            let need = interest.need.clone();
            match pattern.exact() {
                Some(name) => {
                    let named = self.exact.entry(name.to_owned()).or_default();
                    named.push((position, need));
                }
                None => self.patterns.push((pattern, position, need)),
            }
        }
    }

    /// Who wants an operation. Called for every record.
    fn named(&self, operation: &str) -> Arc<Named> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(named) = known.get(operation) {
            return Arc::clone(named);
        }
        drop(known);
        let named = Arc::new(self.work_out(&operation.to_lowercase()));
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() < KNOWN_MAX {
            known.insert(operation.to_owned(), Arc::clone(&named));
        }
        named
    }

    fn work_out(&self, lower: &str) -> Named {
        let exact = self.exact.get(lower).into_iter().flatten();
        let matching = self.patterns.iter().filter(|(p, ..)| p.matches(lower));
        let (mut positions, mut needs) = (Vec::new(), Vec::new());
        for (position, need) in self
            .all
            .iter()
            .chain(exact)
            .map(|(position, need)| (position, need))
            .chain(matching.map(|(_, position, need)| (position, need)))
        {
            if let Some(need) = need.given(lower) {
                positions.push(*position);
                needs.push(need);
            }
        }
        positions.sort_unstable();
        positions.dedup();
        Named {
            positions,
            need: (!needs.is_empty()).then(|| Need::any(needs)),
            fields: OnceLock::new(),
            glance: OnceLock::new(),
        }
    }
}

/// The operations of a record. One without any is wanted by rules that name none.
fn named<'a>(operations: &'a [Cow<'_, str>]) -> impl Iterator<Item = &'a str> {
    let first = operations.first().map_or("", |first| first);
    let others = operations.iter().skip(1).map(|operation| &**operation);
    std::iter::once(first).chain(others)
}

#[cfg(test)]
mod tests {
    use exfilwatch_model::{Claim, Look};

    use super::*;

    fn interest(product: Option<Product>, operations: &[&str]) -> Interest {
        Interest {
            product,
            operations: operations.iter().map(|&o| o.to_owned()).collect(),
            need: Need::Nothing,
        }
    }

    /// An index of positions that look at nothing.
    fn index(all: impl IntoIterator<Item = Vec<Interest>>) -> Index {
        Index::new(all.into_iter().map(|one| (one, Some(BTreeSet::new()))))
    }

    /// Fields stand in records by their names.
    struct Names;

    impl Sight for Names {
        fn look(&self, operation: &str, claim: Claim<'_>) -> Look {
            assert_eq!(operation, "Set-Mailbox");
            Look::word(claim.field())
        }
    }

    #[test]
    fn an_event_meets_only_the_rules_that_may_match() {
        let index = index([
            vec![interest(Some(Product::M365), &["Set-Mailbox", "*Mailbox"])],
            vec![interest(Some(Product::M365), &["*Export*"])],
            vec![interest(None, &[])],
        ]);
        let mut found = Vec::new();
        for (product, operation, expected) in [
            (Product::M365, "set-mailbox", vec![0, 2]),
            (Product::M365, "SEARCHEXPORTED", vec![1, 2]),
            (Product::M365, "", vec![2]),
            (Product::GoogleWorkspace, "Set-Mailbox", vec![2]),
        ] {
            index.find(product, operation, &mut found);
            assert_eq!(found, expected, "{operation}");
        }
    }

    #[test]
    fn of_a_record_with_one_operation_only_what_its_rules_look_at_is_asked_for() {
        let m365 = |operations: &[&str]| vec![interest(Some(Product::M365), operations)];
        let names = |names: &[&str]| Some(names.iter().map(|&name| name.to_owned()).collect());
        let mut all = vec![
            (m365(&["Set-Mailbox", "*Mailbox"]), names(&["f"])),
            (m365(&["Set-*"]), names(&["g"])),
            (m365(&["SharingSet"]), names(&["h"])),
        ];
        let asked = |all: &[(Vec<Interest>, Option<BTreeSet<String>>)],
                     operations: &[&'static str]| {
            let operations: Vec<_> = operations.iter().map(|&o| Cow::Borrowed(o)).collect();
            let fields = Index::new(all.iter().cloned()).fields(Product::M365, &operations);
            ["f", "g", "h", "i"].map(|name| fields.has(name))
        };
        assert_eq!(asked(&all, &["Set-Mailbox"]), [true, true, false, false]);
        assert_eq!(asked(&all, &["sharingset"]), [false, false, true, false]);
        let twice = ["SharingSet", "SharingSet"];
        assert_eq!(asked(&all, &twice), [false, false, true, false]);
        assert_eq!(asked(&all, &["x", "SharingSet"]), [true, true, true, false]);
        assert_eq!(asked(&all, &[]), [false; 4], "nobody wants it");
        all.push((m365(&["*Set"]), None));
        assert_eq!(asked(&all, &["Set-Mailbox"]), [true, true, false, false]);
        assert_eq!(asked(&all, &["SharingSet"]), [true; 4], "one looks at all");
    }

    #[test]
    fn a_record_is_wanted_when_any_of_its_operations_is() {
        let index = index([vec![
            interest(Some(Product::GoogleWorkspace), &["change_user_access"]),
            interest(Some(Product::M365), &["SharingSet"]),
        ]]);
        let wants = |product, operations: &[&'static str]| {
            let operations: Vec<_> = operations.iter().map(|&o| Cow::Borrowed(o)).collect();
            index.wants(product, &operations)
        };
        assert!(wants(
            Product::GoogleWorkspace,
            &["edit", "Change_User_Access"]
        ));
        assert!(!wants(Product::GoogleWorkspace, &["edit"]));
        assert!(wants(Product::M365, &["SharingSet"]));
        assert!(!wants(Product::M365, &["change_user_access"]));
        assert!(!wants(Product::GoogleWorkspace, &[]));
    }

    #[test]
    fn a_record_is_not_wanted_when_no_rule_can_find_the_fields_it_needs() {
        let needing = |operation: &str, name: &str| Interest {
            need: Need::Field(name.to_owned(), Vec::new()),
            ..interest(Some(Product::M365), &[operation])
        };
        let mut interests = vec![needing("Set-Mailbox", "f"), needing("*Mailbox", "g")];
        let wants = |interests: &[Interest], field: &str| {
            let index = index(interests.iter().cloned().map(|one| vec![one]));
            let operations = [Cow::Borrowed("Set-Mailbox")];
            let text = format!(r#"{{"{field}":1}}"#);
            index.wants_record(Product::M365, &operations, text.as_bytes(), &Names)
        };
        assert!(wants(&interests, "f"));
        assert!(wants(&interests, "g"));
        assert!(!wants(&interests, "h"));
        interests.push(interest(Some(Product::M365), &["set-mailbox"]));
        assert!(wants(&interests, "h"), "one rule needs nothing");
    }
}
